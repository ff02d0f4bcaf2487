# SPDX-License-Identifier: Apache-2.0
# Finds what cluster/bootstrap/bootstrap.sh installs. LibTorch, CUDA headers and NCCL come from the torch wheel in the
# private Python prefix; find_package(Torch) of that wheel wants nvcc, so its libraries are declared here as imported
# targets. The wheel also brings headers of other libraries (a newer fmt among them): its folder is searched after the
# system's, so that headers and libraries match.
if(NOT NEOLOOM_PYTHON_PREFIX)
  foreach(kind "--cpu" "")  # the full prefix where it is there, else that of --cpu
    execute_process(
      COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/bootstrap.sh --print-prefix ${kind}
      OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    if(EXISTS "${prefix}/bin/python3" OR NOT NEOLOOM_PYTHON_PREFIX)
      set(NEOLOOM_PYTHON_PREFIX "${prefix}")
    endif()
  endforeach()
endif()
set(NEOLOOM_PYTHON_PREFIX "${NEOLOOM_PYTHON_PREFIX}" CACHE PATH "Private Python prefix with the torch wheel")
file(GLOB NL_SITE_PACKAGES LIST_DIRECTORIES true "${NEOLOOM_PYTHON_PREFIX}/lib/python3*/site-packages")
if(NOT NL_SITE_PACKAGES OR NOT EXISTS "${NL_SITE_PACKAGES}/torch/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No torch wheel under ${NEOLOOM_PYTHON_PREFIX}: run bash cluster/bootstrap/bootstrap.sh")
endif()
set(NL_TORCH "${NL_SITE_PACKAGES}/torch")
set(NL_NVIDIA "${NL_SITE_PACKAGES}/nvidia")
set(NL_PYTHON "${NEOLOOM_PYTHON_PREFIX}/bin/python3")
# Whether the prefix has what the GPU plug-in links; that of bootstrap.sh --cpu has not.
set(NL_CUDA_LIBRARIES OFF)
if(EXISTS "${NL_TORCH}/lib/libtorch_cuda.so" AND EXISTS "${NL_NVIDIA}/nccl")
  set(NL_CUDA_LIBRARIES ON)
endif()
# CUDA's compiler, from bootstrap.sh --gpu_tools; empty: none, neoloom is built without kernels of its own.
set(NL_NVCC "${NEOLOOM_PYTHON_PREFIX}/gpu-tools/nvidia/cu13/bin/nvcc")
if(NOT EXISTS "${NL_NVCC}")
  set(NL_NVCC "")
endif()

# Arrow, from the pyarrow wheel; empty: neoloom is built without Parquet.
set(NL_ARROW "${NEOLOOM_PYTHON_PREFIX}/parquet/pyarrow")
file(GLOB NL_ARROW_LIBRARY RELATIVE "${NL_ARROW}" "${NL_ARROW}/libarrow.so.*")
file(GLOB NL_PARQUET_LIBRARY RELATIVE "${NL_ARROW}" "${NL_ARROW}/libparquet.so.*")
if(NOT NL_ARROW_LIBRARY OR NOT NL_PARQUET_LIBRARY)
  set(NL_ARROW "")
endif()

function(neoloom_import name location)
  add_library(${name} SHARED IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION "${location}" IMPORTED_NO_SONAME ON)
endfunction()

neoloom_import(nl::c10 "${NL_TORCH}/lib/libc10.so")
neoloom_import(nl::gomp "${NL_TORCH}/lib/libgomp.so.1")
neoloom_import(nl::torch_cpu "${NL_TORCH}/lib/libtorch_cpu.so")
set_target_properties(nl::c10 nl::torch_cpu PROPERTIES
  INTERFACE_COMPILE_OPTIONS "SHELL:-idirafter ${NL_TORCH}/include"
  INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=1")
# ATen's parallel_for is a template: a file compiled without OpenMP runs its loops on one thread. The runtime is the torch
# wheel's, so that a process has one pool of threads.
target_compile_options(nl::torch_cpu INTERFACE -fopenmp)
# LibTorch's own headers then include single operators as ours do; without it ATen/TensorOperators.h brings all of them.
target_compile_definitions(nl::torch_cpu INTERFACE AT_PER_OPERATOR_HEADERS)
target_link_libraries(nl::torch_cpu INTERFACE nl::c10 nl::gomp)

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
find_package(CURL 7.85 REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET GLOBAL libpcre2-8)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET GLOBAL libzstd)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET GLOBAL libxxhash)
if(NL_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(NL_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()
