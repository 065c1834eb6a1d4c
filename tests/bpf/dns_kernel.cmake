# The DNS programs, linked with wrappers that stand in for the socket that asked, and the reference
# they are held against. Not the fixture of the other tests: these attach nothing and need neither
# cgroup nor namespace. For tests/bpf and tests/fuzz.
if(NOT TARGET dns_kernel)
  get_directory_property(EGRESSD_BPF_FLAGS DIRECTORY ${PROJECT_SOURCE_DIR}/bpf
                         DEFINITION EGRESSD_BPF_FLAGS)
  egressd_bpf_skeleton(dns_test_bpf
    ${CMAKE_CURRENT_LIST_DIR}/dns_wrappers.bpf.c
    ${PROJECT_SOURCE_DIR}/bpf/egressd_dns.bpf.c)
  add_library(dns_kernel STATIC
    ${CMAKE_CURRENT_LIST_DIR}/dns_compare.cpp
    ${CMAKE_CURRENT_LIST_DIR}/dns_kernel.cpp
    ${PROJECT_SOURCE_DIR}/tests/support/dns_reference.cpp)
  target_link_libraries(dns_kernel PUBLIC egressd_flags egressd_enforce PRIVATE dns_test_bpf_skel)
  target_include_directories(dns_kernel PUBLIC ${PROJECT_SOURCE_DIR}/tests)
endif()
