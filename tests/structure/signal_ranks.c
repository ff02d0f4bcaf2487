/* SPDX-License-Identifier: Apache-2.0 */
/* Stands for neoloom in tests of launch scripts: the ranks agree that one of them was signalled, "save" and leave with 75;
 * with PLANNED_CODE they leave with that at once. */
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile sig_atomic_t received;
static void remember(int number) { received = number; }

int main(void) {
  signal(SIGUSR1, remember);
  signal(SIGUSR2, remember);
  MPI_Init(NULL, NULL);
  int rank, code = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const char* planned = getenv("PLANNED_CODE");
  printf("rank %d started\n", rank);
  fflush(stdout);
  if (planned) {
    code = atoi(planned);
  } else {
    for (int i = 0; i < 400 && code == 0; ++i) {
      int mine = received, any = 0;
      MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
      if (any) {
        usleep(1500000); /* longer than mpirun waits after a TERM */
        printf("rank %d saved after signal %d\n", rank, any);
        fflush(stdout);
        code = 75;
      }
      usleep(50000);
    }
  }
  MPI_Finalize();
  return code;
}
