// What the CPU's kernels and CUDA's both compile is marked for both.
#pragma once

#ifdef __CUDACC__
#define EF_BOTH __host__ __device__
#else
#define EF_BOTH
#endif
