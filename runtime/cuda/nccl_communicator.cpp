// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/nccl_communicator.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <thread>
#include <utility>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/stream_waits.h"

namespace neoloom::cuda {
namespace {

using core::ErrorKind;

class NcclCommunicator final : public comm::Communicator {
 public:
  NcclCommunicator(const NcclSetup& setup, NcclApi nccl, DeviceApi device)
      : setup_(setup), nccl_(std::move(nccl)), device_(std::move(device)), waits_(device_) {
    try {
      join();
      check_device(device_, device_.create_stream(&stream_), "create stream");
      check_device(device_, device_.create_event(&ready_), "create event");
      check_device(device_, device_.create_event(&summed_), "create event");
    } catch (...) {
      failed_ = true;
      release();
      throw;
    }
  }

  ~NcclCommunicator() override { release(); }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  void all_reduce_sum(void* data, size_t n_elements, comm::Element element) override {
    start_sum(data, n_elements, element);
    finish_sums();
  }

  void start_sum(void* data, size_t n_elements, comm::Element element) override {
    check();
    check_device(device_, device_.record_event(ready_, device_.current_stream()), "record event");
    check_device(device_, device_.wait_event(stream_, ready_), "stream wait for event");
    const int result = nccl_.all_reduce_sum(data, n_elements, element, comm_, stream_);
    // NCCL has enqueued the sum only once the call is no longer in progress, and later work must come after it.
    require_settled("ncclAllReduce", result, setup_.call_deadline_seconds);
    reduced_bytes_ += n_elements * comm::element_bytes(element);
  }

  void finish_sums() override {
    const StreamHandle current = device_.current_stream();
    check_device(device_, device_.record_event(summed_, stream_), "record event");
    waits_.begin(current);
    check_device(device_, device_.wait_event(current, summed_), "stream wait for event");
    waits_.end(current);
    exposed_seconds_ += waits_.take_seconds();
  }

  /// Throws when a sum has failed since the last call. Nothing else notices it, because the host does not wait for
  /// sums.
  void check() override { require_settled("ncclAllReduce (earlier)", 0, setup_.call_deadline_seconds); }

  std::string description() const override {
    int version = 0;
    nccl_.version(&version);
    return fmt::format("NCCL {}, device memory, {} rank{}", nccl_version_text(version), setup_.size,
                       setup_.size == 1 ? "" : "s");
  }

 private:
  void join() {
    NcclUniqueId id{};
    // A failure on rank 0 travels in the same message as the id, because the other ranks wait for that.
    struct Message {
      int32_t result = 0;
      NcclUniqueId id{};
    } message;
    if (setup_.rank == 0) message.result = nccl_.unique_id(&message.id);
    setup_.broadcast(&message, sizeof message);
    require_success("ncclGetUniqueId (on rank 0)", message.result);
    id = message.id;
    const int result = nccl_.init_rank(&comm_, setup_.size, id, setup_.rank);
    require_settled("ncclCommInitRankConfig", result, setup_.init_deadline_seconds);
  }

  [[noreturn]] void fail(const char* call, int result) {
    failed_ = true;
    core::fail(ErrorKind::kPeer,
               "{} failed on rank {}: {} ({}). A peer, a device or the network is gone: "
               "start the job again, and it resumes from its newest checkpoint",
               call, setup_.rank, nccl_.error_text(result), comm_ != nullptr ? nccl_.last_error(comm_) : "no detail");
  }

  void require_success(const char* call, int result) {
    if (result != kNcclSuccess) fail(call, result);
  }

  // Polls until the communicator is no longer busy with `call`, which returned `result`.
  void require_settled(const char* call, int result, double deadline_seconds) {
    if (result != kNcclSuccess && result != kNcclInProgress) fail(call, result);
    const double start = core::now_seconds();
    std::chrono::microseconds pause{20};
    while (true) {
      int state = kNcclSuccess;
      require_success("ncclCommGetAsyncError", nccl_.async_error(comm_, &state));
      if (state == kNcclSuccess) return;
      if (state != kNcclInProgress) fail(call, state);
      if (core::now_seconds() - start > deadline_seconds) {
        failed_ = true;
        core::fail(ErrorKind::kPeer,
                   "{} on rank {} was still in progress after {:.1f} s: a peer or the network is gone. "
                   "Start the job again, and it resumes from its newest checkpoint",
                   call, setup_.rank, deadline_seconds);
      }
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::microseconds(1000));
    }
  }

  // Finalizes and destroys the communicator. After a failure aborts it, and waits a few seconds at most for that.
  void release() noexcept {
    if (comm_ != nullptr) {
      if (!leave()) abort_communicator();
      comm_ = nullptr;
    }
    if (hung_) return;  // the stream may still be in use
    waits_.release();
    if (ready_ != nullptr) device_.destroy_event(std::exchange(ready_, nullptr));
    if (summed_ != nullptr) device_.destroy_event(std::exchange(summed_, nullptr));
    if (stream_ != nullptr) device_.destroy_stream(std::exchange(stream_, nullptr));
  }

  bool leave() noexcept {
    if (failed_ || std::uncaught_exceptions() > exceptions_at_start_) return false;
    try {
      require_settled("ncclCommFinalize", nccl_.finalize(comm_), setup_.call_deadline_seconds);
      return nccl_.destroy(comm_) == kNcclSuccess;
    } catch (const std::exception&) {
      return false;
    }
  }

  void abort_communicator() noexcept {
    try {
      auto done = std::make_shared<std::promise<void>>();
      std::future<void> ended = done->get_future();
      std::thread([abort = nccl_.abort, comm = comm_, done] {
        abort(comm);
        done->set_value();
      }).detach();
      const auto limit = std::chrono::duration<double>(setup_.abort_deadline_seconds);
      hung_ = ended.wait_for(limit) != std::future_status::ready;
    } catch (const std::exception&) {
      hung_ = true;  // no thread could start: the end of the process frees everything
    }
  }

  NcclSetup setup_;
  NcclApi nccl_;
  DeviceApi device_;
  StreamWaits waits_;
  NcclHandle comm_ = nullptr;
  StreamHandle stream_ = nullptr;
  EventHandle ready_ = nullptr;   // recorded on the current stream before a sum
  EventHandle summed_ = nullptr;  // recorded on stream_ after the sums
  bool failed_ = false;
  bool hung_ = false;
  int exceptions_at_start_ = std::uncaught_exceptions();
};

}  // namespace

std::unique_ptr<comm::Communicator> make_nccl_communicator(const NcclSetup& setup, NcclApi nccl, DeviceApi device) {
  return std::make_unique<NcclCommunicator>(setup, std::move(nccl), std::move(device));
}

std::string nccl_version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

}  // namespace neoloom::cuda
