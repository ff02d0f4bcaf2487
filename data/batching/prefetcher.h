// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "runtime/core/error.h"

namespace neoloom::data {

/// Makes items on a thread of its own, up to `depth` ahead of pop().
/// Owns: the thread; joined by the destructor.
template <typename Item>
class Prefetcher {
 public:
  /// `next` returns the next item, or nullopt at the end. Only the thread calls it.
  Prefetcher(std::function<std::optional<Item>()> next, int depth) : next_(std::move(next)) {
    core::require(depth > 0, core::ErrorKind::kInternal, "prefetch depth {}: expected at least 1", depth);
    depth_ = static_cast<size_t>(depth);
    thread_ = std::jthread([this](const std::stop_token& stop) { produce(stop); });
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// Blocks until an item is ready; returns nullopt after the last. Rethrows what `next` threw, after the items before
  /// it.
  std::optional<Item> pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || finished_; });
    if (!ready_.empty()) {
      Item item = std::move(ready_.front());
      ready_.pop_front();
      lock.unlock();
      changed_.notify_all();
      return item;
    }
    if (error_) std::rethrow_exception(error_);
    return std::nullopt;
  }

 private:
  std::optional<Item> make(std::exception_ptr& caught) const {
    try {
      return next_();
    } catch (...) {
      caught = std::current_exception();
      return std::nullopt;
    }
  }

  void produce(const std::stop_token& stop) {
    for (bool more = true; more;) {
      std::exception_ptr caught;
      std::optional<Item> item = make(caught);
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return ready_.size() < depth_; })) return;
      more = item.has_value();
      if (more) ready_.push_back(std::move(*item));
      error_ = caught;
      finished_ = !more;
      lock.unlock();
      changed_.notify_all();
    }
  }

  std::function<std::optional<Item>()> next_;
  size_t depth_ = 0;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Item> ready_;
  std::exception_ptr error_;
  bool finished_ = false;
  std::jthread thread_;  // last, so that it is joined before the members it uses are destroyed
};

}  // namespace neoloom::data
