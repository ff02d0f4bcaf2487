// SPDX-License-Identifier: Apache-2.0
// Measures on a GPU what could compute GPT-Neo's attention.
#include "tests/bench/probes/attention_trial.h"

int main(int argc, char** argv) {
  using namespace neoloom::probes;
  const Options options = read_options(argc, argv, "Candidates for attention on the GPU at hand, as JSON lines.");
  AttentionTrials trials;
  return run<AttentionItem>(options, attention_items(), prepare_device, std::ref(trials), device_works);
}
