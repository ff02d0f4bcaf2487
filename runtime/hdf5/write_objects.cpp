// SPDX-License-Identifier: Apache-2.0
#include <hdf5.h>

#include <algorithm>
#include <cstring>

#include "runtime/hdf5/objects.h"
#include "runtime/hdf5/types.h"

namespace neoloom::hdf5 {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{1} << 20;

Dataspace simple_space(const std::vector<uint64_t>& shape, core::ErrorKind kind) {
  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  return Dataspace(NL_H5(kind, H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr)));
}

// Returns the shape of a chunk: whole rows, as many as fit into about 1 MiB.
std::vector<hsize_t> chunk_shape(const std::vector<uint64_t>& shape, uint64_t bytes_per_element) {
  std::vector<hsize_t> chunk(shape.begin(), shape.end());
  uint64_t row_bytes = bytes_per_element;
  for (size_t i = 1; i < shape.size(); ++i) row_bytes *= shape[i];
  chunk[0] = std::clamp<uint64_t>(kChunkBytes / row_bytes, 1, shape[0]);
  return chunk;
}

PropertyList dataset_properties(const std::vector<uint64_t>& shape, uint64_t bytes_per_element, core::ErrorKind kind) {
  PropertyList list(NL_H5(kind, H5Pcreate(H5P_DATASET_CREATE)));
  NL_H5(kind, H5Pset_obj_track_times(list.get(), false));
  NL_H5(kind, H5Pset_fill_time(list.get(), H5D_FILL_TIME_NEVER));
  if (std::find(shape.begin(), shape.end(), 0U) != shape.end()) return list;
  const std::vector<hsize_t> chunk = chunk_shape(shape, bytes_per_element);
  NL_H5(kind, H5Pset_chunk(list.get(), static_cast<int>(chunk.size()), chunk.data()));
  NL_H5(kind, H5Pset_fletcher32(list.get()));
  return list;
}

void write_dataset(Id parent, const std::string& name, const ArrayView& array, const Datatype& type,
                   core::ErrorKind kind) {
  const Dataspace space = simple_space(array.shape, kind);
  const PropertyList properties = dataset_properties(array.shape, H5Tget_size(type.get()), kind);
  const Dataset dataset(NL_H5(
      kind, H5Dcreate2(parent, name.c_str(), type.get(), space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT)));
  if (H5Sget_simple_extent_npoints(space.get()) == 0) return;
  NL_H5(kind, H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, array.data));
}

void write_scalar_attribute(Id object, const std::string& name, const Datatype& type, const void* value,
                            core::ErrorKind kind) {
  const Dataspace space(NL_H5(kind, H5Screate(H5S_SCALAR)));
  const Attribute attribute(
      NL_H5(kind, H5Acreate2(object, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT)));
  NL_H5(kind, H5Awrite(attribute.get(), type.get(), value));
}

}  // namespace

void write_array(Id parent, const std::string& name, const ArrayView& array, core::ErrorKind kind) {
  write_dataset(parent, name, array, disk_type(array.element, kind), kind);
}

void write_text(Id parent, const std::string& name, std::string_view text, core::ErrorKind kind) {
  const std::string copy(text);
  write_texts(parent, name, {&copy, 1}, kind);
}

void write_texts(Id parent, const std::string& name, std::span<const std::string> texts, core::ErrorKind kind) {
  size_t width = 1;
  for (const std::string& text : texts) {
    core::require(text.find('\0') == std::string::npos, kind, "cannot store text \"{}\": it contains a NUL byte", name);
    width = std::max(width, text.size());
  }
  std::string rows(width * texts.size(), '\0');
  for (size_t i = 0; i < texts.size(); ++i) std::memcpy(rows.data() + i * width, texts[i].data(), texts[i].size());
  write_dataset(parent, name, {Element::kUint8, {texts.size()}, rows.data()}, text_type(width, kind), kind);
}

Group create_group(Id parent, const std::string& name, core::ErrorKind kind) {
  const PropertyList list(NL_H5(kind, H5Pcreate(H5P_GROUP_CREATE)));
  NL_H5(kind, H5Pset_obj_track_times(list.get(), false));
  return Group(NL_H5(kind, H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, list.get(), H5P_DEFAULT)));
}

void write_attribute(Id object, const std::string& name, int64_t value, core::ErrorKind kind) {
  write_scalar_attribute(object, name, disk_type(Element::kInt64, kind), &value, kind);
}

void write_attribute(Id object, const std::string& name, double value, core::ErrorKind kind) {
  write_scalar_attribute(object, name, disk_type(Element::kFloat64, kind), &value, kind);
}

void write_attribute(Id object, const std::string& name, std::string_view value, core::ErrorKind kind) {
  std::string padded(value);
  padded.resize(std::max<size_t>(value.size(), 1), '\0');
  write_scalar_attribute(object, name, text_type(padded.size(), kind), padded.data(), kind);
}

}  // namespace neoloom::hdf5
