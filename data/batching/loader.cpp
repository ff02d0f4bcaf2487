// SPDX-License-Identifier: Apache-2.0
#include "data/batching/loader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::data {
namespace {

using core::ErrorKind;
using core::require;

constexpr int64_t kNoLoss = -100;

void add_causal_labels(const TokenStore& store, PaddedBatch& batch) {
  batch.labels.assign(static_cast<size_t>(batch.rows * batch.length), kNoLoss);
  for (int64_t row = 0; row < batch.rows; ++row) {
    const int64_t sample = batch.sample_ids[row];
    const auto ids = store.ids(sample);
    for (size_t at = static_cast<size_t>(store.prompt_tokens(sample)); at < ids.size(); ++at) {
      batch.labels[row * batch.length + static_cast<int64_t>(at)] = ids[at];
    }
  }
}

void add_class_labels(const TokenStore& store, ProblemType problem_type, PaddedBatch& batch) {
  for (const int64_t sample : batch.sample_ids) {
    if (problem_type == ProblemType::kSingleLabel) {
      batch.labels.push_back(store.label(sample));
    } else {
      const auto flags = store.multi_label(sample);
      batch.multi_labels.insert(batch.multi_labels.end(), flags.begin(), flags.end());
    }
  }
}

}  // namespace

PaddedBatch collate(const TokenStore& store, const std::vector<int64_t>& sample_ids, Task task,
                    ProblemType problem_type, int64_t pad_id) {
  require(pad_id >= 0, ErrorKind::kInternal, "pad id {}: expected an id with a row in the embedding", pad_id);
  PaddedBatch batch;
  batch.sample_ids = sample_ids;
  batch.rows = static_cast<int64_t>(sample_ids.size());
  for (const int64_t sample : sample_ids) {
    require(sample >= 0 && sample < store.size(), ErrorKind::kInternal, "sample {} of {} asked for", sample,
            store.size());
    batch.lengths.push_back(std::max<int64_t>(1, static_cast<int64_t>(store.ids(sample).size())));
    batch.length = std::max(batch.length, batch.lengths.back());
    batch.tokens += batch.lengths.back();
  }
  batch.ids.assign(static_cast<size_t>(batch.rows * batch.length), pad_id);
  for (int64_t row = 0; row < batch.rows; ++row) {
    const auto ids = store.ids(sample_ids[row]);
    std::copy(ids.begin(), ids.end(), batch.ids.begin() + row * batch.length);
  }
  if (task == Task::kCausalLm) {
    add_causal_labels(store, batch);
  } else {
    add_class_labels(store, problem_type, batch);
  }
  return batch;
}

struct Prefetcher::State {
  State(std::function<std::optional<PaddedBatch>()> next_in, int depth_in)
      : next(std::move(next_in)), depth(static_cast<size_t>(depth_in)) {
    thread = std::jthread([this](const std::stop_token& stop) { produce(stop); });
  }

  void produce(const std::stop_token& stop) {
    for (bool more = true; more;) {
      std::optional<PaddedBatch> batch;
      std::exception_ptr caught;
      try {
        batch = next();
      } catch (...) {
        caught = std::current_exception();
      }
      std::unique_lock lock(mutex);
      if (!changed.wait(lock, stop, [&] { return ready.size() < depth; })) return;
      more = batch.has_value();
      if (more) ready.push_back(std::move(*batch));
      error = caught;
      finished = !more;
      lock.unlock();
      changed.notify_all();
    }
  }

  std::function<std::optional<PaddedBatch>()> next;
  size_t depth;
  std::mutex mutex;
  std::condition_variable_any changed;
  std::deque<PaddedBatch> ready;
  std::exception_ptr error;
  bool finished = false;
  std::jthread thread;  // last: it is joined before what it uses goes
};

Prefetcher::Prefetcher(std::function<std::optional<PaddedBatch>()> next, int depth) {
  require(depth > 0, ErrorKind::kInternal, "prefetch depth {}: expected at least 1", depth);
  state_ = std::make_unique<State>(std::move(next), depth);
}

Prefetcher::~Prefetcher() = default;

std::optional<PaddedBatch> Prefetcher::pop() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return !state_->ready.empty() || state_->finished; });
  if (!state_->ready.empty()) {
    PaddedBatch batch = std::move(state_->ready.front());
    state_->ready.pop_front();
    lock.unlock();
    state_->changed.notify_all();
    return batch;
  }
  if (state_->error) std::rethrow_exception(state_->error);
  return std::nullopt;
}

}  // namespace neoloom::data
