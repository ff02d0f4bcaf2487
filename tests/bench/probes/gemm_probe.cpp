// SPDX-License-Identifier: Apache-2.0
// Measures on a GPU how fast GPT-Neo's GEMMs could be, and what their epilogues could do beside them.
#include "tests/bench/probes/gemm_trial.h"

int main(int argc, char** argv) {
  using namespace neoloom::probes;
  const Options options = read_options(argc, argv, "Rates of GPT-Neo's GEMMs on the GPU at hand, as JSON lines.");
  return run<GemmItem>(options, gemm_items(), prepare_device, measure_gemm, device_works);
}
