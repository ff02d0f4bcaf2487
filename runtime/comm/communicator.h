// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace neoloom::comm {

enum class Element { kInt64, kFloat32 };

constexpr size_t element_bytes(Element element) { return element == Element::kInt64 ? 8 : 4; }

/// The data plane of a step: sums gradient buffers over ranks. Implementations: MPI (host memory) and NCCL (device
/// memory, in the plug-in). Host control messages go through MpiSession instead.
/// Thread: one thread at a time.
class Communicator {
 public:
  virtual ~Communicator() = default;

  /// Sums `data` [n_elements] over all ranks, in place; every rank ends with the same bits.
  /// Shapes: contiguous memory of this communicator's device, the same n_elements on every rank.
  /// Collective: every rank, in the same order.
  /// Stream: host implementations return when done; the NCCL one enqueues after the work of the current stream and
  /// makes the current stream wait, the host does not.
  /// Throws: Error(kPeer) with call text and library text.
  virtual void all_reduce_sum(void* data, size_t n_elements, Element element) = 0;

  /// Starts the same sum without waiting for it, as MPI_Iallreduce does. The caller must not touch `data` until
  /// finish_sums. Several sums may be in flight. The default implementation blocks.
  /// Collective: every rank, in the same order, finish_sums included.
  virtual void start_sum(void* data, size_t n_elements, Element element) { all_reduce_sum(data, n_elements, element); }
  /// Completes the sums in flight: host implementations wait, the NCCL one makes the current stream wait.
  virtual void finish_sums() {}

  /// Throws Error(kPeer) when a sum in flight has failed. Callers that wait for a device poll it.
  virtual void check() {}

  /// Returns the seconds since the last call in which computation waited for sums: the host, or with NCCL the compute
  /// stream. With NCCL only waits that the device has passed count.
  double take_exposed_seconds() { return std::exchange(exposed_seconds_, 0.0); }

  /// For the log: library, version, transport.
  virtual std::string description() const = 0;

  /// Payload bytes of this rank's sums since construction.
  uint64_t reduced_bytes() const { return reduced_bytes_; }

 protected:
  uint64_t reduced_bytes_ = 0;
  double exposed_seconds_ = 0.0;
};

}  // namespace neoloom::comm
