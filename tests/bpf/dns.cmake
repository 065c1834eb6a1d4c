include(${CMAKE_CURRENT_LIST_DIR}/dns_kernel.cmake)
get_directory_property(EGRESSD_BPF_FLAGS DIRECTORY ${PROJECT_SOURCE_DIR}/bpf
                       DEFINITION EGRESSD_BPF_FLAGS)
add_executable(dns_kernel_test dns_test.cpp)
target_link_libraries(dns_kernel_test PRIVATE dns_kernel GTest::gmock GTest::gtest_main)
gtest_discover_tests(dns_kernel_test TEST_PREFIX dns. PROPERTIES LABELS bpf TIMEOUT 300)
foreach(name packet mutation stream)
  add_executable(dns_${name}_test dns_${name}_test.cpp)
  target_link_libraries(dns_${name}_test PRIVATE dns_kernel GTest::gmock GTest::gtest_main)
  gtest_discover_tests(dns_${name}_test TEST_PREFIX dns. PROPERTIES LABELS bpf TIMEOUT 600)
endforeach()

# All programs in one object, as the agent loads them, and a workload; tests/netns/dns_*.sh.
egressd_bpf_skeleton(dns_e2e_bpf
  ${PROJECT_SOURCE_DIR}/bpf/egressd_dns.bpf.c
  ${PROJECT_SOURCE_DIR}/bpf/egressd_packet.bpf.c
  ${PROJECT_SOURCE_DIR}/bpf/egressd_socket.bpf.c)
add_executable(dns_loader dns_loader.cpp)
target_link_libraries(dns_loader PRIVATE egressd_flags egressd_enforce dns_e2e_bpf_skel)
add_executable(dns_client dns_client.cpp)
target_link_libraries(dns_client PRIVATE egressd_flags)
