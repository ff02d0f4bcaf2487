// SPDX-License-Identifier: Apache-2.0
// Records what a process runs on GPUs. CUDA loads it into any program started with CUDA_INJECTION64_PATH naming it; at
// the end of the process $NL_KERNEL_TIMES holds, in the order in which the device reported them,
//   name I TEXT          once for each kernel; "memcpy" and "memset" stand for copies and fills
//   run I BEGIN END      each time it ran, in nanoseconds of the device's clock
#include <cupti.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BUFFER_BYTES ((size_t)8 << 20)
#define MOST_NAMES 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE* output;
static const char* names[MOST_NAMES];
static int n_names;

// CUPTI keeps one copy of a kernel's name, so that equal names have equal addresses; few kernels run.
static int number_of(const char* name) {
  for (int i = 0; i < n_names; ++i) {
    if (names[i] == name) return i;
  }
  if (n_names == MOST_NAMES) abort();
  names[n_names] = name;
  fprintf(output, "name %d %s\n", n_names, name);
  return n_names++;
}

static void write_run(const char* name, uint64_t begin, uint64_t end) {
  fprintf(output, "run %d %llu %llu\n", number_of(name), (unsigned long long)begin, (unsigned long long)end);
}

static void write_record(const CUpti_Activity* record) {
  if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
    const CUpti_ActivityKernel10* kernel = (const CUpti_ActivityKernel10*)record;
    write_run(kernel->name, kernel->start, kernel->end);
  } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
    const CUpti_ActivityMemcpy6* copy = (const CUpti_ActivityMemcpy6*)record;
    write_run("memcpy", copy->start, copy->end);
  } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
    const CUpti_ActivityMemset4* fill = (const CUpti_ActivityMemset4*)record;
    write_run("memset", fill->start, fill->end);
  }
}

static void CUPTIAPI give_buffer(uint8_t** buffer, size_t* bytes, size_t* most_records) {
  *buffer = aligned_alloc(8, BUFFER_BYTES);
  *bytes = *buffer == NULL ? 0 : BUFFER_BYTES;
  *most_records = 0;
}

static void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t* buffer, size_t bytes, size_t used_bytes) {
  (void)context, (void)stream, (void)bytes;
  pthread_mutex_lock(&lock);
  CUpti_Activity* record = NULL;
  while (cuptiActivityGetNextRecord(buffer, used_bytes, &record) == CUPTI_SUCCESS) write_record(record);
  pthread_mutex_unlock(&lock);
  free(buffer);
}

static void finish(void) {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  fflush(output);
}

// The name that CUDA looks for. Returns: 1 for success.
int InitializeInjection(void) {
  const char* path = getenv("NL_KERNEL_TIMES");
  if (path == NULL || (output = fopen(path, "w")) == NULL) return 0;
  const CUpti_ActivityKind kinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                      CUPTI_ACTIVITY_KIND_MEMSET};
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i) {
    if (cuptiActivityEnable(kinds[i]) != CUPTI_SUCCESS) return 0;
  }
  if (cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS) return 0;
  atexit(finish);
  return 1;
}
