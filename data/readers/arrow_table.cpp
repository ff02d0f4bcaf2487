// SPDX-License-Identifier: Apache-2.0
// Defines the two symbols that open_parquet_table() looks up in the library.
#include <arrow/array.h>
#include <arrow/io/file.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/schema.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "data/readers/parquet_plugin.h"
#include "runtime/core/error.h"

namespace neoloom::data {
namespace {

using arrow::Type;
using core::ErrorKind;
using nlohmann::json;

constexpr int64_t kRowsHeld = 4096;

/// Whether json_of has a value for this type.
bool is_readable(const arrow::DataType& type) {
  switch (type.id()) {
    case Type::DICTIONARY:
      return is_readable(*static_cast<const arrow::DictionaryType&>(type).value_type());
    case Type::LIST:
    case Type::LARGE_LIST:
    case Type::FIXED_SIZE_LIST:
      return is_readable(*type.field(0)->type());
    case Type::STRUCT:
      return std::all_of(type.fields().begin(), type.fields().end(),
                         [](const auto& field) { return is_readable(*field->type()); });
    case Type::STRING:
    case Type::LARGE_STRING:
    case Type::BINARY:
    case Type::LARGE_BINARY:
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW:
    case Type::NA:
    case Type::BOOL:
    case Type::FLOAT:
    case Type::DOUBLE:
      return true;
    default:
      return arrow::is_integer(type.id());
  }
}

json json_of(const arrow::Array& array, int64_t row);

template <typename List>
json list_of(const arrow::Array& array, int64_t row) {
  const auto& list = static_cast<const List&>(array);
  json values = json::array();
  const int64_t begin = list.value_offset(row);
  for (int64_t i = 0; i < list.value_length(row); ++i) values.push_back(json_of(*list.values(), begin + i));
  return values;
}

json struct_of(const arrow::StructArray& array, int64_t row) {
  json values = json::object();
  for (int i = 0; i < array.num_fields(); ++i) {
    values[array.struct_type()->field(i)->name()] = json_of(*array.field(i), row);
  }
  return values;
}

template <typename Array>
auto value_of(const arrow::Array& array, int64_t row) {
  return static_cast<const Array&>(array).Value(row);
}

template <typename Array>
json text_of(const arrow::Array& array, int64_t row) {
  return std::string(static_cast<const Array&>(array).GetView(row));
}

json number_of(const arrow::Array& array, int64_t row) {
  switch (array.type_id()) {
    case Type::INT8:
      return value_of<arrow::Int8Array>(array, row);
    case Type::INT16:
      return value_of<arrow::Int16Array>(array, row);
    case Type::INT32:
      return value_of<arrow::Int32Array>(array, row);
    case Type::INT64:
      return value_of<arrow::Int64Array>(array, row);
    case Type::UINT8:
      return value_of<arrow::UInt8Array>(array, row);
    case Type::UINT16:
      return value_of<arrow::UInt16Array>(array, row);
    case Type::UINT32:
      return value_of<arrow::UInt32Array>(array, row);
    case Type::UINT64:
      return value_of<arrow::UInt64Array>(array, row);
    case Type::FLOAT:
      return value_of<arrow::FloatArray>(array, row);
    default:
      return value_of<arrow::DoubleArray>(array, row);
  }
}

/// pandas writes a gap in a column of numbers as NaN.
json without_nan(json number) {
  return number.is_number_float() && std::isnan(number.get<double>()) ? json() : std::move(number);
}

json json_of(const arrow::Array& array, int64_t row) {
  if (array.IsNull(row)) return nullptr;
  switch (array.type_id()) {
    case Type::DICTIONARY: {
      const auto& encoded = static_cast<const arrow::DictionaryArray&>(array);
      return json_of(*encoded.dictionary(), encoded.GetValueIndex(row));
    }
    case Type::LIST:
      return list_of<arrow::ListArray>(array, row);
    case Type::LARGE_LIST:
      return list_of<arrow::LargeListArray>(array, row);
    case Type::FIXED_SIZE_LIST:
      return list_of<arrow::FixedSizeListArray>(array, row);
    case Type::STRUCT:
      return struct_of(static_cast<const arrow::StructArray&>(array), row);
    case Type::STRING:
      return text_of<arrow::StringArray>(array, row);
    case Type::LARGE_STRING:
      return text_of<arrow::LargeStringArray>(array, row);
    case Type::BINARY:
      return text_of<arrow::BinaryArray>(array, row);
    case Type::LARGE_BINARY:
      return text_of<arrow::LargeBinaryArray>(array, row);
    case Type::STRING_VIEW:
      return text_of<arrow::StringViewArray>(array, row);
    case Type::BINARY_VIEW:
      return text_of<arrow::BinaryViewArray>(array, row);
    case Type::BOOL:
      return static_cast<const arrow::BooleanArray&>(array).Value(row);
    default:
      return without_nan(number_of(array, row));
  }
}

/// Adds the columns of the file that hold this field: of a list or a struct, those within it.
void add_leaves(const parquet::arrow::SchemaField& field, std::vector<int>& leaves) {
  if (field.column_index >= 0) leaves.push_back(field.column_index);
  for (const auto& child : field.children) add_leaves(child, leaves);
}

class ArrowTable : public ParquetTable {
 public:
  explicit ArrowTable(std::string path) : path_(std::move(path)) {
    guarded([&] {
      auto file = arrow::io::MemoryMappedFile::Open(path_, arrow::io::FileMode::READ);
      check(file.status());
      parquet::arrow::FileReaderBuilder builder;
      parquet::ReaderProperties pages;
      pages.set_page_checksum_verification(true);  // of files that have them
      check(builder.Open(*file, pages));
      parquet::ArrowReaderProperties properties(/*use_threads=*/false);
      properties.set_batch_size(kRowsHeld);
      properties.set_pre_buffer(false);
      auto reader = builder.properties(properties)->Build();
      check(reader.status());
      reader_ = std::move(*reader);
      for (const auto& field : reader_->manifest().schema_fields) columns_.push_back(field.field->name());
    });
  }

  const std::vector<std::string>& columns() const override { return columns_; }
  int64_t rows() const override { return reader_->parquet_reader()->metadata()->num_rows(); }

  void choose(const std::vector<std::string>& names) override {
    guarded([&] {
      std::vector<int> leaves;
      for (const std::string& name : names) add_leaves(field_of(name), leaves);
      std::sort(leaves.begin(), leaves.end());
      std::vector<int> groups(static_cast<size_t>(reader_->num_row_groups()));
      for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
      auto batches = reader_->GetRecordBatchReader(groups, leaves);
      check(batches.status());
      batches_ = std::move(*batches);
      for (const std::string& name : names) positions_.push_back(batches_->schema()->GetFieldIndex(name));
    });
  }

  bool next(std::vector<json>& values) override {
    guarded([&] {
      while (!batch_ || row_ == batch_->num_rows()) {
        check(batches_->ReadNext(&batch_));
        row_ = 0;
        if (!batch_) return;
      }
      values.clear();
      for (const int position : positions_) values.push_back(json_of(*batch_->column(position), row_));
      ++row_;
    });
    return batch_ != nullptr;
  }

 private:
  void check(const arrow::Status& status) const {
    core::require(status.ok(), ErrorKind::kData, "{}: it cannot be read as Parquet: {}", path_, status.message());
  }
  /// Turns exceptions of the library into an Error.
  void guarded(const std::function<void()>& act) const {
    try {
      act();
    } catch (const core::Error&) {
      throw;
    } catch (const std::exception& error) {
      core::fail(ErrorKind::kData, "{}: it cannot be read as Parquet: {}", path_, error.what());
    }
  }
  const parquet::arrow::SchemaField& field_of(const std::string& name) const {
    const auto& fields = reader_->manifest().schema_fields;
    core::require(std::count(columns_.begin(), columns_.end(), name) <= 1, ErrorKind::kData,
                  "{}: several columns are called \"{}\"; rename all but one", path_, name);
    const auto found =
        std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.field->name() == name; });
    core::require(found != fields.end(), ErrorKind::kInternal, "{} has no column {}", path_, name);
    core::require(
        is_readable(*found->field->type()), ErrorKind::kData,
        "{}: the column \"{}\" has the type {}; expected text, numbers, booleans, or lists and structs of these", path_,
        name, found->field->type()->ToString());
    return *found;
  }

  std::string path_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::vector<std::string> columns_;
  std::unique_ptr<arrow::RecordBatchReader> batches_;
  std::vector<int> positions_;  // in a batch
  std::shared_ptr<arrow::RecordBatch> batch_;
  int64_t row_ = 0;
};

}  // namespace
}  // namespace neoloom::data

extern "C" int neoloom_parquet_interface() { return neoloom::data::kParquetInterface; }

extern "C" neoloom::data::ParquetTable* neoloom_open_parquet(const char* path) {
  return new neoloom::data::ArrowTable(path);
}
