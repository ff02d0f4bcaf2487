// SPDX-License-Identifier: Apache-2.0
#include <hdf5.h>

#include "runtime/hdf5/objects.h"
#include "runtime/hdf5/types.h"

namespace neoloom::hdf5 {
namespace {

Dataset open_dataset(Id parent, const std::string& name, core::ErrorKind kind) {
  return Dataset(NL_H5(kind, H5Dopen2(parent, name.c_str(), H5P_DEFAULT)));
}

// Refuses a dataset whose data lie in other files or pass through any filter but the Fletcher32 check.
void require_own_plain_storage(const Dataset& dataset, const std::string& name, core::ErrorKind kind) {
  const PropertyList list(NL_H5(kind, H5Dget_create_plist(dataset.get())));
  const int64_t layout = NL_H5(kind, H5Pget_layout(list.get()));
  core::require(layout == H5D_CHUNKED || layout == H5D_CONTIGUOUS || layout == H5D_COMPACT, kind,
                "dataset \"{}\" has a virtual or unknown storage layout", name);
  core::require(NL_H5(kind, H5Pget_external_count(list.get())) == 0, kind,
                "dataset \"{}\" keeps its data in other files", name);
  const int64_t filters = NL_H5(kind, H5Pget_nfilters(list.get()));
  for (unsigned i = 0; i < static_cast<unsigned>(filters); ++i) {
    unsigned flags = 0;
    unsigned config = 0;
    size_t values = 0;
    const int64_t filter = NL_H5(kind, H5Pget_filter2(list.get(), i, &flags, &values, nullptr, 0, nullptr, &config));
    core::require(filter == H5Z_FILTER_FLETCHER32, kind, "dataset \"{}\" uses filter {}; only Fletcher32 is expected",
                  name, filter);
  }
}

std::vector<uint64_t> shape_within(const Dataset& dataset, const std::string& name, uint64_t bytes_per_element,
                                   uint64_t limit_bytes, core::ErrorKind kind) {
  const Dataspace space(NL_H5(kind, H5Dget_space(dataset.get())));
  core::require(H5Sget_simple_extent_type(space.get()) == H5S_SIMPLE, kind, "dataset \"{}\" is not an array", name);
  const int64_t rank = NL_H5(kind, H5Sget_simple_extent_ndims(space.get()));
  std::vector<hsize_t> dims(static_cast<size_t>(rank));
  NL_H5(kind, H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr));
  uint64_t bytes = bytes_per_element;
  for (const hsize_t extent : dims) {
    core::require(extent == 0 || bytes <= limit_bytes / extent, kind,
                  "dataset \"{}\" declares more data than the {} bytes that the file can hold", name, limit_bytes);
    bytes *= extent;
  }
  return {dims.begin(), dims.end()};
}

void require_type(const Datatype& found, const Datatype& expected, const char* what, const std::string& name,
                  core::ErrorKind kind) {
  core::require(NL_H5(kind, H5Tequal(found.get(), expected.get())) > 0, kind,
                "{} \"{}\" has another element type than the format asks for", what, name);
}

// Returns the stored type after checking that it is a fixed-length string.
Datatype fixed_text_type(hid_t stored, const char* what, const std::string& name, core::ErrorKind kind) {
  Datatype type(stored);
  core::require(H5Tget_class(type.get()) == H5T_STRING && H5Tis_variable_str(type.get()) == 0 &&
                    H5Tget_strpad(type.get()) == H5T_STR_NULLPAD,
                kind, "{} \"{}\" is not a fixed-length string padded with NUL", what, name);
  return type;
}

std::string without_padding(const char* bytes, size_t count) {
  while (count > 0 && bytes[count - 1] == '\0') --count;
  return std::string(bytes, count);
}

Attribute open_scalar_attribute(Id object, const std::string& name, core::ErrorKind kind) {
  Attribute attribute(NL_H5(kind, H5Aopen(object, name.c_str(), H5P_DEFAULT)));
  const Dataspace space(NL_H5(kind, H5Aget_space(attribute.get())));
  core::require(H5Sget_simple_extent_npoints(space.get()) == 1, kind, "attribute \"{}\" is not a single value", name);
  return attribute;
}

void read_number_attribute(Id object, const std::string& name, Element element, void* out, core::ErrorKind kind) {
  const Attribute attribute = open_scalar_attribute(object, name, kind);
  const Datatype stored(NL_H5(kind, H5Aget_type(attribute.get())));
  const Datatype expected = disk_type(element, kind);
  require_type(stored, expected, "attribute", name, kind);
  NL_H5(kind, H5Aread(attribute.get(), expected.get(), out));
}

}  // namespace

Group open_group(Id parent, const std::string& name, core::ErrorKind kind) {
  return Group(NL_H5(kind, H5Gopen2(parent, name.c_str(), H5P_DEFAULT)));
}

std::vector<std::string> member_names(Id group, core::ErrorKind kind) {
  H5G_info_t info{};
  NL_H5(kind, H5Gget_info(group, &info));
  std::vector<std::string> names;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto name_of = [&](char* out, size_t size) {
      return NL_H5(kind, H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, out, size, H5P_DEFAULT));
    };
    std::string name(static_cast<size_t>(name_of(nullptr, 0)), '\0');
    name_of(name.data(), name.size() + 1);
    H5L_info_t link{};
    NL_H5(kind, H5Lget_info(group, name.c_str(), &link, H5P_DEFAULT));
    core::require(link.type == H5L_TYPE_HARD, kind, "member \"{}\" is a soft or external link", name);
    names.push_back(std::move(name));
  }
  return names;
}

std::vector<uint64_t> array_shape(Id parent, const std::string& name, Element element, uint64_t limit_bytes,
                                  core::ErrorKind kind) {
  const Dataset dataset = open_dataset(parent, name, kind);
  const Datatype stored(NL_H5(kind, H5Dget_type(dataset.get())));
  require_type(stored, disk_type(element, kind), "dataset", name, kind);
  require_own_plain_storage(dataset, name, kind);
  return shape_within(dataset, name, element_bytes(element), limit_bytes, kind);
}

void read_array(Id parent, const std::string& name, Element element, void* out, core::ErrorKind kind) {
  const Dataset dataset = open_dataset(parent, name, kind);
  const Datatype type = disk_type(element, kind);
  NL_H5(kind, H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, out));
}

std::vector<std::string> read_texts(Id parent, const std::string& name, uint64_t limit_bytes, core::ErrorKind kind) {
  const Dataset dataset = open_dataset(parent, name, kind);
  const Datatype type = fixed_text_type(NL_H5(kind, H5Dget_type(dataset.get())), "dataset", name, kind);
  require_own_plain_storage(dataset, name, kind);
  const size_t width = H5Tget_size(type.get());
  const std::vector<uint64_t> shape = shape_within(dataset, name, width, limit_bytes, kind);
  core::require(shape.size() == 1, kind, "dataset \"{}\" is not a list of strings", name);
  std::string rows(width * shape[0], '\0');
  if (!rows.empty()) NL_H5(kind, H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, rows.data()));
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < shape[0]; ++i) texts.push_back(without_padding(rows.data() + i * width, width));
  return texts;
}

std::string read_text(Id parent, const std::string& name, uint64_t limit_bytes, core::ErrorKind kind) {
  std::vector<std::string> texts = read_texts(parent, name, limit_bytes, kind);
  core::require(texts.size() == 1, kind, "dataset \"{}\" holds {} strings, expected 1", name, texts.size());
  return std::move(texts[0]);
}

int64_t read_int_attribute(Id object, const std::string& name, core::ErrorKind kind) {
  int64_t value = 0;
  read_number_attribute(object, name, Element::kInt64, &value, kind);
  return value;
}

double read_double_attribute(Id object, const std::string& name, core::ErrorKind kind) {
  double value = 0.0;
  read_number_attribute(object, name, Element::kFloat64, &value, kind);
  return value;
}

std::string read_text_attribute(Id object, const std::string& name, core::ErrorKind kind) {
  constexpr size_t kLimitBytes = 65536;  // what an attribute in an object header can hold
  const Attribute attribute = open_scalar_attribute(object, name, kind);
  const Datatype type = fixed_text_type(NL_H5(kind, H5Aget_type(attribute.get())), "attribute", name, kind);
  std::string value(H5Tget_size(type.get()), '\0');
  core::require(value.size() <= kLimitBytes, kind, "attribute \"{}\" is {} bytes long", name, value.size());
  NL_H5(kind, H5Aread(attribute.get(), type.get(), value.data()));
  return without_padding(value.data(), value.size());
}

}  // namespace neoloom::hdf5
