# SPDX-License-Identifier: Apache-2.0
# Finds what cluster/bootstrap/bootstrap.sh installs. LibTorch, CUDA headers and NCCL come from the torch wheel in the
# private Python prefix; find_package(Torch) of that wheel wants nvcc, so its libraries are declared here as imported
# targets.
if(NOT NEOLOOM_PYTHON_PREFIX)
  execute_process(
    COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/bootstrap.sh --print-prefix
    OUTPUT_VARIABLE NEOLOOM_PYTHON_PREFIX OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endif()
set(NEOLOOM_PYTHON_PREFIX "${NEOLOOM_PYTHON_PREFIX}" CACHE PATH "Private Python prefix with the torch wheel")
file(GLOB NL_SITE_PACKAGES LIST_DIRECTORIES true "${NEOLOOM_PYTHON_PREFIX}/lib/python3*/site-packages")
if(NOT NL_SITE_PACKAGES OR NOT EXISTS "${NL_SITE_PACKAGES}/torch/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No torch wheel under ${NEOLOOM_PYTHON_PREFIX}: run bash cluster/bootstrap/bootstrap.sh")
endif()
set(NL_TORCH "${NL_SITE_PACKAGES}/torch")
set(NL_NVIDIA "${NL_SITE_PACKAGES}/nvidia")
set(NL_PYTHON "${NEOLOOM_PYTHON_PREFIX}/bin/python3")

function(neoloom_import name location)
  add_library(${name} SHARED IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION "${location}" IMPORTED_NO_SONAME ON)
endfunction()

neoloom_import(nl::c10 "${NL_TORCH}/lib/libc10.so")
neoloom_import(nl::torch_cpu "${NL_TORCH}/lib/libtorch_cpu.so")
set_target_properties(nl::c10 nl::torch_cpu PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${NL_TORCH}/include"
  INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${NL_TORCH}/include"
  INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=1")
# The wheel brings headers of a newer fmt than the system's library, and they come first in every file that includes
# LibTorch. Their definitions are compiled once here; header-only, each such file would take twice as long.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/fmt_of_torch.cpp @ONLY CONTENT
[[#include <fmt/format-inl.h>
FMT_BEGIN_NAMESPACE
namespace detail {
template FMT_API auto thousands_sep_impl<char>(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl(locale_ref) -> char;
template FMT_API auto dragonbox::to_decimal(float) noexcept -> dragonbox::decimal_fp<float>;
template FMT_API auto dragonbox::to_decimal(double) noexcept -> dragonbox::decimal_fp<double>;
template FMT_API void buffer<char>::append(const char*, const char*);
}
FMT_END_NAMESPACE
]])
add_library(nl_fmt_of_torch STATIC ${CMAKE_BINARY_DIR}/fmt_of_torch.cpp)
target_include_directories(nl_fmt_of_torch SYSTEM PRIVATE "${NL_TORCH}/include")
target_link_libraries(nl::torch_cpu INTERFACE nl::c10 nl_fmt_of_torch)

find_package(MPI REQUIRED COMPONENTS C)
add_library(nl::mpi INTERFACE IMPORTED GLOBAL)
target_link_libraries(nl::mpi INTERFACE MPI::MPI_C)
target_compile_definitions(nl::mpi INTERFACE OMPI_SKIP_MPICXX)

find_package(HDF5 REQUIRED COMPONENTS C)
add_library(nl::hdf5 INTERFACE IMPORTED GLOBAL)
target_include_directories(nl::hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(nl::hdf5 INTERFACE ${HDF5_C_LIBRARIES})

find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET GLOBAL libpcre2-8)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET GLOBAL libxxhash)
if(NL_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(NL_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()
