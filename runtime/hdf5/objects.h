// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/hdf5/handles.h"

namespace neoloom::hdf5 {

// Writing is deterministic and records no times, so equal calls make equal bytes. Reading accepts only what these
// functions write. Every function throws Error(kind) with the failing call, or with what was expected and found.

/// Element types on disk: little-endian, IEEE.
enum class Element { kUint8, kInt32, kInt64, kFloat32, kFloat64 };

template <typename T>
consteval Element element_of() {
  if constexpr (std::same_as<T, uint8_t>) return Element::kUint8;
  if constexpr (std::same_as<T, int32_t>) return Element::kInt32;
  if constexpr (std::same_as<T, int64_t>) return Element::kInt64;
  if constexpr (std::same_as<T, float>) return Element::kFloat32;
  if constexpr (std::same_as<T, double>) return Element::kFloat64;
}

uint64_t element_bytes(Element element);

/// Row-major data to write; does not own.
struct ArrayView {
  Element element = Element::kUint8;
  std::vector<uint64_t> shape;
  const void* data = nullptr;
};

template <typename T>
ArrayView array_view(std::span<const T> values) {
  return {element_of<T>(), {values.size()}, values.data()};
}

/// Creates dataset `name`: chunks of about 1 MiB with Fletcher32 sums; no chunks when it is empty.
void write_array(Id parent, const std::string& name, const ArrayView& array, core::ErrorKind kind);

/// Creates dataset `name` of shape [1] with one UTF-8 string of fixed length, padded with NUL; `text` holds no NUL.
void write_text(Id parent, const std::string& name, std::string_view text, core::ErrorKind kind);

/// As write_text, of shape [n], with one string per row. All have the fixed length of the longest.
void write_texts(Id parent, const std::string& name, std::span<const std::string> texts, core::ErrorKind kind);

Group create_group(Id parent, const std::string& name, core::ErrorKind kind);
Group open_group(Id parent, const std::string& name, core::ErrorKind kind);

void write_attribute(Id object, const std::string& name, int64_t value, core::ErrorKind kind);
void write_attribute(Id object, const std::string& name, double value, core::ErrorKind kind);
void write_attribute(Id object, const std::string& name, std::string_view value, core::ErrorKind kind);

/// Names in `group`, ascending. Refuses soft and external links.
std::vector<std::string> member_names(Id group, core::ErrorKind kind);

/// Returns the shape of dataset `name`. Throws for another element type, external or virtual storage, filters other
/// than Fletcher32, and more than `limit_bytes` of data.
std::vector<uint64_t> array_shape(Id parent, const std::string& name, Element element, uint64_t limit_bytes,
                                  core::ErrorKind kind);

/// Reads a whole dataset that array_shape() accepted into `out`, which has room for all its elements.
void read_array(Id parent, const std::string& name, Element element, void* out, core::ErrorKind kind);

/// Reads what write_text or write_texts wrote. Throws when it is more than `limit_bytes` in all.
std::vector<std::string> read_texts(Id parent, const std::string& name, uint64_t limit_bytes, core::ErrorKind kind);
std::string read_text(Id parent, const std::string& name, uint64_t limit_bytes, core::ErrorKind kind);

int64_t read_int_attribute(Id object, const std::string& name, core::ErrorKind kind);
double read_double_attribute(Id object, const std::string& name, core::ErrorKind kind);
std::string read_text_attribute(Id object, const std::string& name, core::ErrorKind kind);

}  // namespace neoloom::hdf5
