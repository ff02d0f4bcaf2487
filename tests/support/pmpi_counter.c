// SPDX-License-Identifier: Apache-2.0
// Counts what a rank hands to MPI: preload it (LD_PRELOAD) into any MPI program. At MPI_Finalize each rank writes one
// JSON line to $NL_PMPI_OUT.<rank>:
//   {"rank": 0, "size": 2,
//    "total": {"MPI_Allreduce": {"calls": 3, "bytes": 48}, ...},
//    "intervals": [{"mark": null, "calls": {...}}, {"mark": 1, "calls": {...}}, ...]}
// An interval ends where MPI_Pcontrol(level) is called; its mark is the level of the call that opened it, null for
// the first. Bytes are those of the buffer that this rank gives to (or, as a receiver, takes from) the call: count x
// size of the type; for calls with one count per peer their sum. Barriers carry none. Calls of one rank are counted
// under a lock, since MPI_THREAD_MULTIPLE allows several threads.
#include <inttypes.h>
#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMES 64

struct tally {
  uint64_t calls;
  uint64_t bytes;
};
struct interval {
  int has_mark;
  int mark;
  struct tally by_name[MAX_NAMES];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char* names[MAX_NAMES];
static int n_names;
static struct interval* intervals;
static size_t n_intervals, capacity;

static struct interval* open_interval(int has_mark, int mark) {
  if (n_intervals == capacity) {
    capacity = capacity == 0 ? 64 : 2 * capacity;
    intervals = realloc(intervals, capacity * sizeof *intervals);
    if (intervals == NULL) abort();
  }
  struct interval* fresh = &intervals[n_intervals++];
  memset(fresh, 0, sizeof *fresh);
  fresh->has_mark = has_mark;
  fresh->mark = mark;
  return fresh;
}

static int index_of(const char* name) {
  for (int i = 0; i < n_names; ++i) {
    if (strcmp(names[i], name) == 0) return i;
  }
  if (n_names == MAX_NAMES) abort();
  names[n_names] = name;
  return n_names++;
}

static void add(const char* name, uint64_t bytes) {
  pthread_mutex_lock(&lock);
  struct interval* current = n_intervals == 0 ? open_interval(0, 0) : &intervals[n_intervals - 1];
  struct tally* tally = &current->by_name[index_of(name)];
  tally->calls += 1;
  tally->bytes += bytes;
  pthread_mutex_unlock(&lock);
}

static uint64_t bytes_of(int count, MPI_Datatype type) {
  int size = 0;
  if (count <= 0 || type == MPI_DATATYPE_NULL) return 0;
  PMPI_Type_size(type, &size);
  return (uint64_t)count * (uint64_t)size;
}

static uint64_t bytes_of_all(const int* counts, MPI_Datatype type, MPI_Comm comm) {
  int size = 0;
  uint64_t bytes = 0;
  PMPI_Comm_size(comm, &size);
  for (int i = 0; i < size; ++i) bytes += bytes_of(counts[i], type);
  return bytes;
}

static void print_tallies(FILE* out, const struct tally* by_name) {
  const char* comma = "";
  fputc('{', out);
  for (int i = 0; i < n_names; ++i) {
    if (by_name[i].calls == 0) continue;
    fprintf(out, "%s\"%s\": {\"calls\": %" PRIu64 ", \"bytes\": %" PRIu64 "}", comma, names[i], by_name[i].calls,
            by_name[i].bytes);
    comma = ", ";
  }
  fputc('}', out);
}

static void write_report(void) {
  const char* prefix = getenv("NL_PMPI_OUT");
  if (prefix == NULL) return;
  int rank = 0, size = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  PMPI_Comm_size(MPI_COMM_WORLD, &size);
  char path[4096];
  snprintf(path, sizeof path, "%s.%d", prefix, rank);
  FILE* out = fopen(path, "w");
  if (out == NULL) {
    perror(path);
    return;
  }
  struct tally total[MAX_NAMES] = {{0, 0}};
  for (size_t k = 0; k < n_intervals; ++k) {
    for (int i = 0; i < n_names; ++i) {
      total[i].calls += intervals[k].by_name[i].calls;
      total[i].bytes += intervals[k].by_name[i].bytes;
    }
  }
  fprintf(out, "{\"rank\": %d, \"size\": %d, \"total\": ", rank, size);
  print_tallies(out, total);
  fprintf(out, ", \"intervals\": [");
  for (size_t k = 0; k < n_intervals; ++k) {
    fprintf(out, "%s{\"mark\": ", k == 0 ? "" : ", ");
    if (intervals[k].has_mark) {
      fprintf(out, "%d", intervals[k].mark);
    } else {
      fprintf(out, "null");
    }
    fprintf(out, ", \"calls\": ");
    print_tallies(out, intervals[k].by_name);
    fputc('}', out);
  }
  fprintf(out, "]}\n");
  fclose(out);
}

int MPI_Pcontrol(const int level, ...) {
  pthread_mutex_lock(&lock);
  if (n_intervals == 0) open_interval(0, 0);
  open_interval(1, level);
  pthread_mutex_unlock(&lock);
  return MPI_SUCCESS;
}

int MPI_Finalize(void) {
  write_report();
  return PMPI_Finalize();
}

// One line per call: its name and parameters, what it carries, and what it is passed on as.
#define COUNTED(name, parameters, bytes, arguments) \
  int MPI_##name parameters {                       \
    add("MPI_" #name, bytes);                       \
    return PMPI_##name arguments;                   \
  }

// clang-format off
COUNTED(Allreduce, (const void* s, void* r, int n, MPI_Datatype t, MPI_Op o, MPI_Comm c), bytes_of(n, t), (s, r, n, t, o, c))
COUNTED(Iallreduce, (const void* s, void* r, int n, MPI_Datatype t, MPI_Op o, MPI_Comm c, MPI_Request* q), bytes_of(n, t), (s, r, n, t, o, c, q))
COUNTED(Reduce, (const void* s, void* r, int n, MPI_Datatype t, MPI_Op o, int root, MPI_Comm c), bytes_of(n, t), (s, r, n, t, o, root, c))
COUNTED(Ireduce, (const void* s, void* r, int n, MPI_Datatype t, MPI_Op o, int root, MPI_Comm c, MPI_Request* q), bytes_of(n, t), (s, r, n, t, o, root, c, q))
COUNTED(Reduce_scatter, (const void* s, void* r, const int* n, MPI_Datatype t, MPI_Op o, MPI_Comm c), bytes_of_all(n, t, c), (s, r, n, t, o, c))
COUNTED(Reduce_scatter_block, (const void* s, void* r, int n, MPI_Datatype t, MPI_Op o, MPI_Comm c), bytes_of(n, t), (s, r, n, t, o, c))
COUNTED(Scan, (const void* s, void* r, int n, MPI_Datatype t, MPI_Op o, MPI_Comm c), bytes_of(n, t), (s, r, n, t, o, c))
COUNTED(Bcast, (void* b, int n, MPI_Datatype t, int root, MPI_Comm c), bytes_of(n, t), (b, n, t, root, c))
COUNTED(Ibcast, (void* b, int n, MPI_Datatype t, int root, MPI_Comm c, MPI_Request* q), bytes_of(n, t), (b, n, t, root, c, q))
COUNTED(Allgather, (const void* s, int n, MPI_Datatype t, void* r, int m, MPI_Datatype u, MPI_Comm c), bytes_of(m, u), (s, n, t, r, m, u, c))
COUNTED(Iallgather, (const void* s, int n, MPI_Datatype t, void* r, int m, MPI_Datatype u, MPI_Comm c, MPI_Request* q), bytes_of(m, u), (s, n, t, r, m, u, c, q))
COUNTED(Allgatherv, (const void* s, int n, MPI_Datatype t, void* r, const int* m, const int* d, MPI_Datatype u, MPI_Comm c), bytes_of(n, t), (s, n, t, r, m, d, u, c))
COUNTED(Gather, (const void* s, int n, MPI_Datatype t, void* r, int m, MPI_Datatype u, int root, MPI_Comm c), bytes_of(n, t), (s, n, t, r, m, u, root, c))
COUNTED(Gatherv, (const void* s, int n, MPI_Datatype t, void* r, const int* m, const int* d, MPI_Datatype u, int root, MPI_Comm c), bytes_of(n, t), (s, n, t, r, m, d, u, root, c))
COUNTED(Scatter, (const void* s, int n, MPI_Datatype t, void* r, int m, MPI_Datatype u, int root, MPI_Comm c), bytes_of(m, u), (s, n, t, r, m, u, root, c))
COUNTED(Scatterv, (const void* s, const int* n, const int* d, MPI_Datatype t, void* r, int m, MPI_Datatype u, int root, MPI_Comm c), bytes_of(m, u), (s, n, d, t, r, m, u, root, c))
COUNTED(Alltoall, (const void* s, int n, MPI_Datatype t, void* r, int m, MPI_Datatype u, MPI_Comm c), bytes_of(n, t), (s, n, t, r, m, u, c))
COUNTED(Alltoallv, (const void* s, const int* n, const int* d, MPI_Datatype t, void* r, const int* m, const int* e, MPI_Datatype u, MPI_Comm c), bytes_of_all(n, t, c), (s, n, d, t, r, m, e, u, c))
COUNTED(Barrier, (MPI_Comm c), 0, (c))
COUNTED(Ibarrier, (MPI_Comm c, MPI_Request* q), 0, (c, q))
COUNTED(Send, (const void* b, int n, MPI_Datatype t, int to, int tag, MPI_Comm c), bytes_of(n, t), (b, n, t, to, tag, c))
COUNTED(Ssend, (const void* b, int n, MPI_Datatype t, int to, int tag, MPI_Comm c), bytes_of(n, t), (b, n, t, to, tag, c))
COUNTED(Isend, (const void* b, int n, MPI_Datatype t, int to, int tag, MPI_Comm c, MPI_Request* q), bytes_of(n, t), (b, n, t, to, tag, c, q))
COUNTED(Recv, (void* b, int n, MPI_Datatype t, int from, int tag, MPI_Comm c, MPI_Status* s), bytes_of(n, t), (b, n, t, from, tag, c, s))
COUNTED(Irecv, (void* b, int n, MPI_Datatype t, int from, int tag, MPI_Comm c, MPI_Request* q), bytes_of(n, t), (b, n, t, from, tag, c, q))
COUNTED(Sendrecv, (const void* b, int n, MPI_Datatype t, int to, int tag, void* r, int m, MPI_Datatype u, int from, int rtag, MPI_Comm c, MPI_Status* s), bytes_of(n, t) + bytes_of(m, u), (b, n, t, to, tag, r, m, u, from, rtag, c, s))
// clang-format on
