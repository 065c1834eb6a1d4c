# The DNS programs, linked with wrappers that stand in for the socket that asked. Not the fixture of
# the other tests: these attach nothing and need neither cgroup nor namespace.
get_directory_property(EGRESSD_BPF_FLAGS DIRECTORY ${PROJECT_SOURCE_DIR}/bpf
                       DEFINITION EGRESSD_BPF_FLAGS)
egressd_bpf_skeleton(dns_test_bpf
  ${CMAKE_CURRENT_SOURCE_DIR}/dns_wrappers.bpf.c
  ${PROJECT_SOURCE_DIR}/bpf/egressd_dns.bpf.c)
add_library(dns_kernel STATIC dns_kernel.cpp ${PROJECT_SOURCE_DIR}/tests/support/dns_reference.cpp)
target_link_libraries(dns_kernel PUBLIC egressd_flags egressd_enforce PRIVATE dns_test_bpf_skel)
target_include_directories(dns_kernel PUBLIC ${PROJECT_SOURCE_DIR}/tests)
add_executable(dns_kernel_test dns_test.cpp)
target_link_libraries(dns_kernel_test PRIVATE dns_kernel GTest::gmock GTest::gtest_main)
gtest_discover_tests(dns_kernel_test TEST_PREFIX dns. PROPERTIES LABELS bpf TIMEOUT 300)

# All programs in one object, as the agent loads them, and a workload; tests/netns/dns_*.sh.
egressd_bpf_skeleton(dns_e2e_bpf
  ${PROJECT_SOURCE_DIR}/bpf/egressd_dns.bpf.c
  ${PROJECT_SOURCE_DIR}/bpf/egressd_packet.bpf.c
  ${PROJECT_SOURCE_DIR}/bpf/egressd_socket.bpf.c)
add_executable(dns_loader dns_loader.cpp)
target_link_libraries(dns_loader PRIVATE egressd_flags egressd_enforce dns_e2e_bpf_skel)
add_executable(dns_client dns_client.cpp)
target_link_libraries(dns_client PRIVATE egressd_flags)
