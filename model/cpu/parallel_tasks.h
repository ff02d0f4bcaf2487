// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>

namespace neoloom::model {

/// Runs tasks 0 to count - 1 on all threads with dynamic scheduling: a busy core does not delay the others. Calls
/// `worker` once per thread with a function that returns the thread's next task, or -1 after the last. No result may
/// depend on which thread runs a task.
template <typename Worker>
void parallel_tasks(int64_t count, Worker worker) {
  std::atomic<int64_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    worker([&]() -> int64_t {
      const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      return task < count ? task : -1;
    });
  });
}

}  // namespace neoloom::model
