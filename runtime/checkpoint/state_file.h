// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "runtime/checkpoint/state.h"
#include "runtime/core/error.h"
#include "runtime/hdf5/handles.h"

namespace neoloom::checkpoint {

inline constexpr const char* kFormatName = "neoloom-checkpoint";
/// The largest version. A state of AdamW without optional arrays has version 1: best_params add 1, initial_params 2,
/// another optimizer 4.
inline constexpr int64_t kFormatVersion = 8;

/// The file was written by a later neoloom. Falling back to an older checkpoint, as for a damaged file, would lose
/// work.
class NewerFormat : public core::Error {
 public:
  using core::Error::Error;
};

/// Bytes of the state's arrays, texts and index as stored, without HDF5's structure and chunk padding.
uint64_t payload_bytes(const State& state);

/// Writes `state` under the root of an open HDF5 file as FORMAT.md says.
/// Throws: Error(kInternal) when the state contradicts itself, Error(kCheckpoint) when HDF5 fails.
void write_state(hdf5::Id file, const State& state);

/// Whether read_state keeps the flat buffers, or only reads them one after the other to check them.
enum class Arrays { kKeep, kRead };

/// Reads and checks everything FORMAT.md names. No array may be larger than `file_bytes`.
/// Throws: NewerFormat, Error(kCheckpoint) with the reason.
State read_state(hdf5::Id file, uint64_t file_bytes, Arrays arrays = Arrays::kKeep);

}  // namespace neoloom::checkpoint
