// SPDX-License-Identifier: Apache-2.0
// To be preloaded: counts the live bytes of posix_memalign, from which LibTorch takes the memory of its tensors, and writes
// their peak into the file that TENSOR_BYTES names, with the process id at its end. Blocks below a page do not count.
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { kSlots = 1 << 18, kSmallest = 4096 };
extern void* __libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void* block);

static struct {
  uintptr_t block;  // 1: was freed
  size_t bytes;
} slots[kSlots];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static size_t live, peak;

static size_t hash(uintptr_t block) { return (block >> 6) * 0x9E3779B97F4A7C15u >> 46; }

int posix_memalign(void** result, size_t alignment, size_t bytes) {
  void* const block = __libc_memalign(alignment, bytes);
  if (block == NULL) return ENOMEM;
  *result = block;
  if (malloc_usable_size(block) < kSmallest) return 0;
  pthread_mutex_lock(&mutex);
  size_t i = hash((uintptr_t)block);
  while (slots[i].block > 1) i = (i + 1) % kSlots;
  slots[i].block = (uintptr_t)block;
  slots[i].bytes = bytes;
  live += bytes;
  if (live > peak) peak = live;
  pthread_mutex_unlock(&mutex);
  return 0;
}

void free(void* block) {
  if (block != NULL && malloc_usable_size(block) >= kSmallest) {
    pthread_mutex_lock(&mutex);
    size_t i = hash((uintptr_t)block);
    for (size_t seen = 0; seen < kSlots && slots[i].block != 0; ++seen, i = (i + 1) % kSlots) {
      if (slots[i].block != (uintptr_t)block) continue;
      slots[i].block = 1;
      live -= slots[i].bytes;
      break;
    }
    pthread_mutex_unlock(&mutex);
  }
  __libc_free(block);
}

__attribute__((destructor)) static void write_peak(void) {
  const char* const name = getenv("TENSOR_BYTES");
  char path[4096];
  if (name == NULL || snprintf(path, sizeof(path), "%s.%d", name, (int)getpid()) >= (int)sizeof(path)) return;
  FILE* const file = fopen(path, "w");
  if (file == NULL) return;
  fprintf(file, "%zu\n", peak);
  fclose(file);
}
