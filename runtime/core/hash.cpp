// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/hash.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include <array>

#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::core {
namespace {

std::string in_hex(std::span<const unsigned char> digest) {
  std::string text;
  text.reserve(2 * digest.size());
  for (unsigned char byte : digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  require(state_->context != nullptr && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1,
          ErrorKind::kInternal, "EVP_DigestInit_ex(EVP_sha256()) failed");
}

Sha256::~Sha256() = default;

Sha256& Sha256::add(const void* bytes, size_t count_bytes) {
  require(EVP_DigestUpdate(state_->context, bytes, count_bytes) == 1, ErrorKind::kInternal, "EVP_DigestUpdate failed");
  return *this;
}

Sha256& Sha256::add_field(std::string_view text) {
  const uint64_t length = text.size();
  return add(&length, sizeof length).add(text);
}

std::string Sha256::hex() {
  std::array<unsigned char, 32> digest{};
  require(EVP_DigestFinal_ex(state_->context, digest.data(), nullptr) == 1, ErrorKind::kInternal,
          "EVP_DigestFinal_ex failed");
  return in_hex(digest);
}

std::string sha256_hex(const void* bytes, size_t count_bytes) { return Sha256().add(bytes, count_bytes).hex(); }

std::string sha1_hex(std::string_view text) {
  std::array<unsigned char, 20> digest{};
  require(EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha1(), nullptr) == 1, ErrorKind::kInternal,
          "EVP_Digest(EVP_sha1()) failed");
  return in_hex(digest);
}

std::string sha256_of_file(const std::string& path) {
  const MappedFile file(path);
  return sha256_hex(file.data(), file.size_bytes());
}

uint64_t xxh3(const void* bytes, size_t count_bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes, count_bytes, seed);
}

}  // namespace neoloom::core
