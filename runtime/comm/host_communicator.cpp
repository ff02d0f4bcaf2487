// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/host_communicator.h"

#include <mpi.h>

#include <vector>

#include "runtime/comm/mpi_check.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"

namespace neoloom::comm {
namespace {

class HostCommunicator final : public Communicator {
 public:
  HostCommunicator(MPI_Comm comm, int size, std::string library_version, std::function<Watchdog::Guard()> guard)
      : comm_(comm), size_(size), library_version_(std::move(library_version)), guard_(std::move(guard)) {}

  ~HostCommunicator() override {
    int finalized = 0;
    if (comm_ == MPI_COMM_NULL || MPI_Finalized(&finalized) != MPI_SUCCESS || finalized != 0) return;
    const auto bounded = guard_();
    MPI_Comm_free(&comm_);
  }
  HostCommunicator(const HostCommunicator&) = delete;
  HostCommunicator& operator=(const HostCommunicator&) = delete;

  void all_reduce_sum(void* data, size_t n_elements, Element element) override {
    const core::ScopedTimer timer(exposed_seconds_);
    const auto bounded = guard_();
    for_each_part(data, n_elements, element, [&](char* part, int count, MPI_Datatype type) {
      NL_MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, part, count, type, MPI_SUM, comm_));
    });
  }

  void start_sum(void* data, size_t n_elements, Element element) override {
    for_each_part(data, n_elements, element, [&](char* part, int count, MPI_Datatype type) {
      NL_MPI_CHECK(MPI_Iallreduce(MPI_IN_PLACE, part, count, type, MPI_SUM, comm_, &under_way_.emplace_back()));
    });
  }

  void finish_sums() override {
    const core::ScopedTimer timer(exposed_seconds_);
    if (under_way_.empty()) return;
    const auto bounded = guard_();
    NL_MPI_CHECK(MPI_Waitall(static_cast<int>(under_way_.size()), under_way_.data(), MPI_STATUSES_IGNORE));
    under_way_.clear();
  }

  std::string description() const override {
    if (size_ == 1) return "one rank: no communication";
    return fmt::format("{}, host memory, {} ranks", library_version_, size_);
  }

 private:
  template <typename Sum>
  void for_each_part(void* data, size_t n_elements, Element element, const Sum& sum) {
    reduced_bytes_ += n_elements * element_bytes(element);
    if (size_ == 1) return;  // one rank's values are their sum
    const MPI_Datatype type = element == Element::kInt64 ? MPI_INT64_T : MPI_FLOAT;
    for_each_piece(n_elements, kMaxElementsPerCall, [&](size_t first, size_t count) {
      sum(static_cast<char*>(data) + first * element_bytes(element), static_cast<int>(count), type);
    });
  }

  MPI_Comm comm_;
  std::vector<MPI_Request> under_way_;
  int size_;
  std::string library_version_;
  std::function<Watchdog::Guard()> guard_;
};

}  // namespace

std::unique_ptr<Communicator> wrap_host_communicator(void* mpi_comm, int size, const std::string& library_version,
                                                     std::function<Watchdog::Guard()> guard) {
  return std::make_unique<HostCommunicator>(*static_cast<MPI_Comm*>(mpi_comm), size, library_version, std::move(guard));
}

}  // namespace neoloom::comm
