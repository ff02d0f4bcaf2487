// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <zlib.h>
#include <zstd.h>

#include "data/readers/first_values.h"
#include "tests/unit/data/support.h"

namespace neoloom::data {
namespace {

std::string gzipped(std::string_view text) {
  constexpr int kGzip = MAX_WBITS + 16;
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, kGzip, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}

std::string zstandard(std::string_view text) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress2(context, out.data(), out.size(), text.data(), text.size()));
  ZSTD_freeCCtx(context);
  return out;
}

class Compressed : public StoreTest {
 protected:
  void expect_rows(const std::string& name, const std::string& bytes, const std::vector<std::string>& texts) {
    EXPECT_EQ(texts_of(*build(name, bytes)), texts) << name;
  }
};

TEST_F(Compressed, TheFirstBytesDecideWhateverTheName) {
  const std::string csv = "text,label\none,x\ntwo,y\n";
  for (const auto& pack : {gzipped, zstandard}) {
    for (const char* name : {"a.csv.gz", "a.csv.zst", "a.csv", "A.CSV.GZ"})
      expect_rows(name, pack(csv), {"one", "two"});
    expect_rows("a.tsv.gz", pack("text\tlabel\none\tx\n"), {"one"});
    expect_rows("a.jsonl.zst", pack("{\"text\": \"one\", \"label\": 1}\n"), {"one"});
    expect_rows("a.json.gz", pack("[{\"text\": \"one\", \"label\": 1}]"), {"one"});
    expect_rows("b.json.gz", pack("{\"text\": \"one\", \"label\": 1}\n"), {"one"});
  }
  expect_rows("plain.csv.gz", csv, {"one", "two"});
}

TEST_F(Compressed, ATextFileIsOneStream) {
  request_.task = Task::kCausalLm;
  expect_rows("a.txt.gz", gzipped("ab"), {"ab<eos>"});
}

TEST_F(Compressed, SeveralMembersAndFramesAreOneText) {
  const std::string head = "text,label\none,x\n";
  expect_rows("a.csv.gz", gzipped(head) + gzipped("two,y\n") + gzipped(""), {"one", "two"});
  expect_rows("b.csv.gz", gzipped(head) + std::string(512, '\0'), {"one"});
  expect_rows("a.csv.zst", zstandard(head) + zstandard("two,y\n"), {"one", "two"});
}

TEST_F(Compressed, TextsOfManyPiecesComeWhole) {
  request_.max_length_tokens = 3'000'000;
  std::string csv = "text,label\n";
  for (int i = 0; i < 3; ++i) csv += std::string(1'500'000, static_cast<char>('a' + i)) + ",x\n";
  // A frame of exactly the size of a piece ends with it.
  csv += std::string((size_t{8} << 20) - csv.size() - 3, 'z') + ",x\n";
  for (const std::string& bytes : {gzipped(csv), zstandard(csv)}) {
    const auto store = build("a.csv.gz", bytes);
    ASSERT_EQ(store->size(), 4);
    EXPECT_EQ(store->ids(2).size(), 1'500'000U);
    EXPECT_EQ(store->ids(2).back(), 'c');
  }
}

TEST_F(Compressed, AFileThatWasCutIsNamedWithItsSize) {
  const std::string csv = "text,label\none,x\ntwo,y\n";
  const std::string gzip = gzipped(csv);
  const std::string zstd = zstandard(csv);
  for (size_t size = 2; size < gzip.size(); ++size) {
    expect_data_error("a.csv.gz", gzip.substr(0, size),
                      {"a.csv.gz: the gzip stream has no end", fmt::format("after {} bytes", size), "copy it again"});
  }
  for (size_t size = 4; size < zstd.size(); ++size) {
    expect_data_error("a.csv.zst", zstd.substr(0, size),
                      {"a.csv.zst: the zstd stream has no end", fmt::format("after {} bytes", size)});
  }
}

TEST_F(Compressed, AnotherTextThanTheChecksumSaysIsRefused) {
  std::string gzip = gzipped("text,label\none,x\n");
  std::string zstd = zstandard("text,label\none,x\n");
  gzip[gzip.size() - 8] ^= 1;
  zstd.back() ^= 1;
  expect_data_error("a.csv.gz", gzip,
                    {"a.csv.gz", "damaged: the checksum (CRC-32) in the file is not that of the text"});
  expect_data_error("a.csv.zst", zstd, {"a.csv.zst", "damaged", "doesn't match checksum"});
  gzip[gzip.size() - 8] ^= 1;
  gzip.back() ^= 1;
  expect_data_error("a.csv.gz", gzip, {"the length in the file is not that of the text"});
}

TEST_F(Compressed, WhateverByteIsWrongNoRowIsRead) {
  const std::string csv = "text,label\none,x\ntwo,y\n";
  const std::string gzip = gzipped(csv);
  // The first ten bytes also say when and where it was made.
  for (size_t at = 10; at < gzip.size(); ++at) {
    std::string bytes = gzip;
    bytes[at] ^= 0x55;
    error_of([&] { build("a.csv.gz", bytes); });
  }
  const std::string zstd = zstandard(csv);
  for (size_t at = 6; at < zstd.size(); ++at) {
    std::string bytes = zstd;
    bytes[at] ^= 0x55;
    error_of([&] { build("a.csv.zst", bytes); });
  }
}

TEST_F(Compressed, WhatFollowsTheDataIsNamed) {
  expect_data_error("a.csv.gz", gzipped("text,label\none,x\n") + "text",
                    {"4 bytes follow that are no gzip data", "0x74"});
  expect_data_error("a.csv.zst", zstandard("text,label\none,x\n") + "text", {"a.csv.zst", "damaged"});
}

TEST_F(Compressed, ArchivesAndOtherCompressionsAreNamed) {
  expect_data_error("a.csv", "BZh91AY", {"a bzip2 file", "gzip or zstd"});
  expect_data_error("a.csv",
                    std::string_view("\xFD"
                                     "7zXZ\0",
                                     6),
                    {"an xz file"});
  expect_data_error("a.csv.gz", gzipped("PK\x03\x04"), {"a ZIP archive"});
  expect_data_error("a.csv.gz", gzipped(gzipped("text,label\none,x\n")), {"a gzip file within a compressed file"});
  expect_data_error("a.csv.gz", gzipped(""), {"is empty"});
}

TEST_F(Compressed, TheColumnsOfAFileShowWithoutReadingAllOfIt) {
  Options options;
  std::string rows = "{\"text\": \"a\", \"label\": 7}\n";
  for (int i = 0; i < 400'000; ++i) rows += "{\"text\": \"some text that is long\"}\n";
  std::string bytes = gzipped(rows);
  bytes.back() ^= 1;  // the end is damaged, which only the whole reading finds
  const auto values = first_values(folder_.write("a.jsonl.gz", bytes), options, {"label", "other"});
  EXPECT_EQ(values[0].text, "7");
  EXPECT_EQ(values[1].kind, Cell::Kind::kMissing);
}

TEST_F(Compressed, NoTemporaryFileStays) {
  build("a.csv.gz", gzipped("text,label\none,x\n"));
  for (const auto& entry : std::filesystem::directory_iterator(folder_.file("cache"))) {
    EXPECT_EQ(entry.path().extension(), ".h5");
  }
}

}  // namespace
}  // namespace neoloom::data
