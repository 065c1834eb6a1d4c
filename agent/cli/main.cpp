#include <iostream>

#include "cli/commands.h"

int main(int argc, char** argv) {
  return egressd::cli::run(argc, argv, {.out = std::cout, .err = std::cerr});
}
