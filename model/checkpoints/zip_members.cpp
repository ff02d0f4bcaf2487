// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/zip_members.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::model {
namespace {

constexpr std::string_view kLocalHeader = "PK\3\4";
constexpr std::string_view kDirectoryEntry = "PK\1\2";
constexpr std::string_view kDirectoryEnd = "PK\5\6";
constexpr std::string_view kZip64End = "PK\6\6";
constexpr std::string_view kZip64Locator = "PK\6\7";
constexpr size_t kEndBytes = 22;
constexpr size_t kZip64LocatorBytes = 20;
constexpr size_t kMaxCommentBytes = 0xffff;
constexpr uint64_t kInZip64 = 0xffffffff;  // a 32-bit field whose value stands in the zip64 field
constexpr uint64_t kMaxMembers = 1'000'000;

/// Reads little-endian fields. Every access is checked.
class Bytes {
 public:
  Bytes(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  std::string_view at(uint64_t begin, uint64_t count) const {
    require(begin <= text_.size() && count <= text_.size() - begin, "it ends early: truncated; fetch it again");
    return text_.substr(begin, count);
  }
  uint64_t number(uint64_t begin, size_t count) const {
    uint64_t value = 0;
    const std::string_view bytes = at(begin, count);
    for (size_t i = 0; i < count; ++i) value |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return value;
  }
  uint64_t u16(uint64_t begin) const { return number(begin, 2); }
  uint64_t u32(uint64_t begin) const { return number(begin, 4); }
  uint64_t u64(uint64_t begin) const { return number(begin, 8); }
  void require(bool condition, const char* rule) const {
    core::require(condition, core::ErrorKind::kWeights, "{}: damaged zip archive: {}", path_, rule);
  }
  size_t size() const { return text_.size(); }
  std::string_view text() const { return text_; }
  const std::string& path() const { return path_; }

 private:
  std::string_view text_;
  const std::string& path_;
};

struct Directory {
  uint64_t begin = 0, end = 0;  // bytes
  uint64_t members = 0;
};

Directory find_directory(const Bytes& bytes) {
  bytes.require(bytes.size() >= kEndBytes, "its end is missing: truncated; fetch it again");
  const size_t earliest = bytes.size() - std::min(bytes.size(), kEndBytes + kMaxCommentBytes);
  const size_t end = bytes.text().rfind(kDirectoryEnd, bytes.size() - kEndBytes);
  bytes.require(end != std::string_view::npos && end >= earliest, "its end is missing: truncated; fetch it again");
  Directory found{bytes.u32(end + 16), 0, bytes.u16(end + 10)};
  uint64_t size = bytes.u32(end + 12);
  uint64_t limit = end;
  const bool zip64 = end >= kZip64LocatorBytes && bytes.at(end - kZip64LocatorBytes, 4) == kZip64Locator;
  if (zip64) {
    limit = bytes.u64(end - kZip64LocatorBytes + 8);
    bytes.require(bytes.at(limit, 4) == kZip64End, "the zip64 record is not where its locator says");
    found.members = bytes.u64(limit + 32);
    size = bytes.u64(limit + 40);
    found.begin = bytes.u64(limit + 48);
  }
  bytes.require(found.begin <= limit && size <= limit - found.begin, "the central directory lies outside of it");
  bytes.require(found.members <= kMaxMembers, "it claims more than 1,000,000 members");
  found.end = found.begin + size;
  return found;
}

/// Fills the fields that the 32-bit entry leaves to the zip64 extra field, in the order of the specification.
void read_zip64(const Bytes& bytes, uint64_t begin, uint64_t end, std::initializer_list<uint64_t*> fields) {
  while (begin + 4 <= end && bytes.u16(begin) != 1) begin += 4 + bytes.u16(begin + 2);
  const bool there = begin + 4 <= end;
  const uint64_t last = there ? begin + 4 + bytes.u16(begin + 2) : 0;
  begin += 4;
  for (uint64_t* field : fields) {
    if (*field != kInZip64) continue;
    bytes.require(there && last <= end && begin + 8 <= last, "a zip64 field is missing");
    *field = bytes.u64(begin);
    begin += 8;
  }
}

/// Returns where the data of a member begins. The local header must bear the name of the directory's entry.
uint64_t data_begin(const Bytes& bytes, uint64_t header, std::string_view name) {
  bytes.require(bytes.at(header, 4) == kLocalHeader, "a member's local header is not where the directory says");
  const uint64_t name_bytes = bytes.u16(header + 26);
  bytes.require(bytes.at(header + 30, name_bytes) == name, "a member has another name in its local header");
  return header + 30 + name_bytes + bytes.u16(header + 28);
}

}  // namespace

bool is_zip(std::string_view file) { return file.starts_with(kLocalHeader); }

std::map<std::string, ZipMember> zip_members(std::string_view file, const std::string& path) {
  const Bytes bytes(file, path);
  const Directory directory = find_directory(bytes);
  std::map<std::string, ZipMember> members;
  uint64_t at = directory.begin;
  for (uint64_t i = 0; i < directory.members; ++i) {
    bytes.require(at < directory.end && bytes.at(at, 4) == kDirectoryEntry,
                  "its directory has fewer members than said");
    uint64_t stored = bytes.u32(at + 20), size = bytes.u32(at + 24), header = bytes.u32(at + 42);
    const uint64_t name_bytes = bytes.u16(at + 28), extra_bytes = bytes.u16(at + 30);
    const std::string_view name = bytes.at(at + 46, name_bytes);
    const uint64_t extra = at + 46 + name_bytes;
    read_zip64(bytes, extra, extra + extra_bytes, {&size, &stored, &header});
    const bool plain = bytes.u16(at + 10) == 0 && (bytes.u16(at + 8) & 1) == 0 && stored == size;
    core::require(
        plain, core::ErrorKind::kWeights,
        "{}: the member {} is compressed or encrypted, which torch.save never does: is it a TorchScript program?", path,
        core::quoted(name));
    const uint64_t begin = data_begin(bytes, header, name);
    bytes.require(begin <= directory.begin && size <= directory.begin - begin, "a member reaches into the directory");
    const bool fresh = members.emplace(std::string(name), ZipMember{begin, size}).second;
    bytes.require(fresh, "two members have one name");
    at = extra + extra_bytes + bytes.u16(at + 32);
  }
  return members;
}

}  // namespace neoloom::model
