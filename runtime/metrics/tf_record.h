// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace neoloom::metrics {

/// CRC-32C (Castagnoli; RFC 3720, B.4).
uint32_t crc32c(std::string_view bytes);

/// Returns a TFRecord: length and data, each with its masked CRC-32C (tensorflow/core/lib/io/record_writer.h).
std::string tf_record(std::string_view data);

}  // namespace neoloom::metrics
