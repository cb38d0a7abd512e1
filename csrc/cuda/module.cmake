# The module _cuda (docs/cuda.md).

if(ENCODEC_FAST_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(nvcc nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
    if(nvcc)
      set(CMAKE_CUDA_COMPILER "${nvcc}")
    endif()
  endif()
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(STATUS "No working nvcc: the CUDA module is not built")
    return()
  endif()
  execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --version OUTPUT_VARIABLE nvcc_version ERROR_QUIET)
  string(REGEX MATCH "release ([0-9]+)" nvcc_version "${nvcc_version}")
  if(NOT CMAKE_MATCH_1 GREATER_EQUAL 12)
    message(STATUS "nvcc is older than CUDA 12: the CUDA module is not built")
    return()
  endif()
elseif(ENCODEC_FAST_CUDA STREQUAL "OFF")
  return()
elseif(NOT ENCODEC_FAST_CUDA MATCHES "^(ON|EMULATED)$")
  message(FATAL_ERROR "ENCODEC_FAST_CUDA: expected AUTO, ON, OFF or EMULATED, found ${ENCODEC_FAST_CUDA}")
endif()

set(cuda_kernels csrc/cuda/gemm.cu csrc/cuda/lstm.cu csrc/cuda/norm.cu csrc/cuda/elements.cu csrc/cuda/rvq.cu
                 csrc/cuda/look_up.cu csrc/cuda/lm.cu csrc/cuda/attention.cu csrc/cuda/entropy.cu)
set(cuda_sources
  csrc/bindings/cuda.cpp csrc/bindings/cuda_language_model.cpp
  csrc/cuda/runtime.cpp csrc/cuda/pack.cpp csrc/cuda/weights.cpp csrc/cuda/tape.cpp csrc/cuda/executor.cpp csrc/cuda/executor_ops.cpp
  csrc/cuda/staging.cpp csrc/cuda/coder.cpp csrc/cuda/search.cpp csrc/cuda/signals.cpp
  csrc/cuda/lm_weights.cpp csrc/cuda/lm_state.cpp csrc/cuda/lm_plan.cpp csrc/cuda/lm_coder.cpp csrc/cuda/lm_decode.cpp
  csrc/engine/matrix.cpp csrc/engine/program.cpp csrc/engine/shortlist.cpp csrc/engine/layout.cpp
  csrc/engine/block.cpp csrc/engine/geometry.cpp
  csrc/engine/language_model.cpp csrc/engine/lm_lanes.cpp)
# One thread is one lane: kernels/elementary.h over kernels/lane.h.
set(cuda_definitions EF_ISA=device EF_ONE_LANE)

if(ENCODEC_FAST_CUDA STREQUAL "EMULATED")
  set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++;-Wno-unknown-pragmas")
  nanobind_add_module(_cuda NB_STATIC NOMINSIZE ${cuda_sources} ${cuda_kernels}
    tests/cuda/emulation/block.cpp tests/cuda/emulation/runtime.cpp tests/cuda/emulation/streams.cpp)
  target_include_directories(_cuda PRIVATE tests/cuda/emulation)
  set_source_files_properties(${cuda_kernels} PROPERTIES COMPILE_DEFINITIONS "${cuda_definitions}")
  # Only the time of the tests depends on these. The build runs where it was made.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    target_compile_options(_cuda PRIVATE -mtls-dialect=gnu2)
    include(CheckCXXSourceRuns)
    check_cxx_source_runs("int main() { return __builtin_cpu_supports(\"fma\") ? 0 : 1; }" HOST_HAS_FMA)
    if(HOST_HAS_FMA)
      target_compile_options(_cuda PRIVATE -mavx2 -mfma)
    endif()
  endif()
else()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)  # and PTX of the last, for what comes later
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(CMAKE_CUDA_STANDARD 17)
  # What the arithmetic rests on (docs/determinism.md) are the first four.
  add_library(cuda_kernels OBJECT ${cuda_kernels})
  target_include_directories(cuda_kernels PRIVATE csrc)
  target_compile_definitions(cuda_kernels PRIVATE ${cuda_definitions})
  target_compile_options(cuda_kernels PRIVATE
    -fmad=false -prec-div=true -prec-sqrt=true -ftz=false -lineinfo
    "-Xcompiler=-fvisibility=hidden,-ffp-contract=off"
    $<$<BOOL:${ENCODEC_FAST_WERROR}>:-Werror=all-warnings>)
  nanobind_add_module(_cuda NB_STATIC NOMINSIZE ${cuda_sources} $<TARGET_OBJECTS:cuda_kernels>)
  target_link_libraries(_cuda PRIVATE CUDA::cudart_static)
endif()
target_link_libraries(_cuda PRIVATE ef_flags)
install(TARGETS _cuda LIBRARY DESTINATION encodec_fast)
