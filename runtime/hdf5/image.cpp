// SPDX-License-Identifier: Apache-2.0
#include "runtime/hdf5/image.h"

#include <hdf5.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace neoloom::hdf5 {
namespace {

constexpr size_t kSmallestIncrementBytes = size_t{1} << 16;

PropertyList access_properties(core::ErrorKind kind) {
  prepare_library();
  PropertyList list(NL_H5(kind, H5Pcreate(H5P_FILE_ACCESS)));
  NL_H5(kind, H5Pset_libver_bounds(list.get(), H5F_LIBVER_V110, H5F_LIBVER_V110));
  // H5F_CLOSE_SEMI: closing a file with open objects fails instead of leaving an incomplete image.
  NL_H5(kind, H5Pset_fclose_degree(list.get(), H5F_CLOSE_SEMI));
  return list;
}

PropertyList creation_properties(core::ErrorKind kind) {
  PropertyList list(NL_H5(kind, H5Pcreate(H5P_FILE_CREATE)));
  NL_H5(kind, H5Pset_obj_track_times(list.get(), false));
  // Up to 64 links and attributes of the root stay in its object header, which is smaller than HDF5's heaps.
  NL_H5(kind, H5Pset_link_phase_change(list.get(), 64, 0));
  NL_H5(kind, H5Pset_attr_phase_change(list.get(), 64, 0));
  return list;
}

}  // namespace

void ImageBytes::Free::operator()(std::byte* data) const noexcept { std::free(data); }

// Keeps the buffer of HDF5's in-memory driver, which would free it when the file is closed: the buffer is the file.
struct ImageWriter::Buffer {
  std::span<std::byte> memory;  // the caller's memory; empty: own memory
  void* live = nullptr;         // the driver's current buffer
  std::byte* closed = nullptr;  // own memory, once the driver has closed the file
  size_t capacity = 0;

  ~Buffer() { std::free(closed); }

  void* in_memory(size_t count) {
    if (count > memory.size()) return nullptr;
    capacity = count;
    return live = memory.data();
  }
  static void* allocate(size_t count, H5FD_file_image_op_t, void* user) {
    auto* buffer = static_cast<Buffer*>(user);
    if (!buffer->memory.empty()) return buffer->in_memory(count);
    buffer->live = std::calloc(count, 1);
    buffer->capacity = count;
    return buffer->live;
  }
  static void* grow(void* old, size_t count, H5FD_file_image_op_t operation, void* user) {
    auto* buffer = static_cast<Buffer*>(user);
    if (old == nullptr) return allocate(count, operation, user);
    if (!buffer->memory.empty()) return buffer->in_memory(count);
    void* grown = std::realloc(old, count);
    if (grown == nullptr) return nullptr;
    if (count > buffer->capacity) {
      std::memset(static_cast<std::byte*>(grown) + buffer->capacity, 0, count - buffer->capacity);
    }
    buffer->live = grown;
    buffer->capacity = count;
    return grown;
  }
  static void* copy(void* target, const void* source, size_t count, H5FD_file_image_op_t, void*) {
    return std::memcpy(target, source, count);
  }
  static herr_t release(void* pointer, H5FD_file_image_op_t operation, void* user) {
    auto* buffer = static_cast<Buffer*>(user);
    if (pointer != nullptr && pointer == buffer->memory.data()) return 0;
    if (operation == H5FD_FILE_IMAGE_OP_FILE_CLOSE && pointer == buffer->live) {
      buffer->closed = static_cast<std::byte*>(pointer);
    } else {
      std::free(pointer);
    }
    return 0;
  }
};

namespace {

void* same_user_data(void* user) { return user; }
herr_t keep_user_data(void*) { return 0; }

// Returns the end-of-file address from a superblock of version 2 or 3: H5Fget_filesize needs an open file.
size_t end_of_file(const std::byte* image, size_t capacity, core::ErrorKind kind) {
  constexpr size_t kVersionAt = 8;
  constexpr size_t kOffsetSizeAt = 9;
  constexpr size_t kEndAt = 28;
  uint64_t end = 0;
  core::require(capacity >= kEndAt + sizeof end, kind, "HDF5 image is only {} bytes long", capacity);
  const auto version = std::to_integer<int>(image[kVersionAt]);
  const auto offset_size = std::to_integer<int>(image[kOffsetSizeAt]);
  core::require((version == 2 || version == 3) && offset_size == 8, kind,
                "HDF5 wrote superblock version {} with {}-byte offsets, expected version 2 or 3 with 8", version,
                offset_size);
  std::memcpy(&end, image + kEndAt, sizeof end);
  core::require(end <= capacity, kind, "HDF5 image ends at {}, beyond its buffer of {} bytes", end, capacity);
  return end;
}

}  // namespace

ImageWriter::ImageWriter(size_t expected_bytes, core::ErrorKind kind)
    : buffer_(std::make_unique<Buffer>()), kind_(kind) {
  open(std::max(expected_bytes, kSmallestIncrementBytes));
}

ImageWriter::ImageWriter(std::span<std::byte> memory, core::ErrorKind kind)
    : buffer_(std::make_unique<Buffer>()), kind_(kind) {
  core::require(!memory.empty(), kind, "no memory to build an HDF5 image in");
  buffer_->memory = memory;
  open(kSmallestIncrementBytes);
}

ImageWriter::~ImageWriter() = default;

void ImageWriter::open(size_t increment_bytes) {
  const PropertyList access = access_properties(kind_);
  const PropertyList creation = creation_properties(kind_);
  NL_H5(kind_, H5Pset_fapl_core(access.get(), increment_bytes, /*backing_store=*/false));
  H5FD_file_image_callbacks_t callbacks = {Buffer::allocate, Buffer::copy,   Buffer::grow, Buffer::release,
                                           same_user_data,   keep_user_data, buffer_.get()};
  NL_H5(kind_, H5Pset_file_image_callbacks(access.get(), &callbacks));
  file_.reset(NL_H5(kind_, H5Fcreate("image", H5F_ACC_TRUNC, creation.get(), access.get())));
}

size_t ImageWriter::close() {
  const int64_t open_objects = NL_H5(kind_, H5Fget_obj_count(file_.get(), H5F_OBJ_ALL)) - 1;
  core::require(open_objects == 0, kind_, "{} objects of an HDF5 image are still open", open_objects);
  close_file(file_, kind_);
  const std::byte* image = buffer_->memory.empty() ? buffer_->closed : buffer_->memory.data();
  core::require(image != nullptr, kind_, "HDF5 closed an image without handing over its bytes");
  return end_of_file(image, buffer_->capacity, kind_);
}

ImageBytes ImageWriter::finish() {
  const size_t size = close();
  return ImageBytes(std::exchange(buffer_->closed, nullptr), size);
}

size_t ImageWriter::finish_in_place() { return close(); }

// Lets HDF5 read the caller's memory in place. HDF5 asks for buffers and copies on the way from the property list to
// the driver; it gets this memory each time.
struct ImageReader::View {
  void* data = nullptr;
  size_t size_bytes = 0;

  static void* allocate(size_t count, H5FD_file_image_op_t, void* user) {
    auto* view = static_cast<View*>(user);
    return count == view->size_bytes ? view->data : nullptr;
  }
  static void* copy(void* target, const void* source, size_t, H5FD_file_image_op_t, void*) {
    return target == source ? target : nullptr;
  }
  static void* refuse_growth(void*, size_t, H5FD_file_image_op_t, void*) { return nullptr; }
  static herr_t keep(void*, H5FD_file_image_op_t, void*) { return 0; }
};

ImageReader::ImageReader(std::span<const std::byte> bytes, core::ErrorKind kind) : view_(std::make_unique<View>()) {
  core::require(!bytes.empty(), kind, "an HDF5 image is empty");
  // The file is opened read-only, so HDF5 does not write through this pointer.
  view_->data = const_cast<std::byte*>(bytes.data());
  view_->size_bytes = bytes.size();
  prepare_library();
  const PropertyList access(NL_H5(kind, H5Pcreate(H5P_FILE_ACCESS)));
  NL_H5(kind, H5Pset_fapl_core(access.get(), size_t{1} << 16, /*backing_store=*/false));
  H5FD_file_image_callbacks_t callbacks = {View::allocate, View::copy,     View::refuse_growth, View::keep,
                                           same_user_data, keep_user_data, view_.get()};
  NL_H5(kind, H5Pset_file_image_callbacks(access.get(), &callbacks));
  NL_H5(kind, H5Pset_file_image(access.get(), view_->data, view_->size_bytes));
  file_.reset(NL_H5(kind, H5Fopen("image", H5F_ACC_RDONLY, access.get())));
}

ImageReader::~ImageReader() = default;

}  // namespace neoloom::hdf5
