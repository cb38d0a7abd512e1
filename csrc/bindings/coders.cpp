// Probabilities to intervals, and the two coders on their own.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "dispatch.h"
#include "engine/float_control.h"
#include "entropy/arithmetic_coder.h"
#include "entropy/cdf_table.h"
#include "entropy/range_coder.h"

namespace encodec_fast {
namespace {

using Symbols = Array<uint16_t, 1>;
using Probabilities = Array<float, 2>;
using Starts = Array<uint32_t, 2>;
using ReferenceCdf = Array<int64_t, 2>;

// Memory set aside for symbols before any is decoded; more is taken as they come.
constexpr int64_t kMaxReserved = 1 << 20;

void check_probabilities(const Probabilities& p) {
  if (columns_of(p) < kMinSymbols || columns_of(p) > kMaxSymbols) {
    throw std::invalid_argument("probabilities: expected 2..65536 per distribution, found " +
                                std::to_string(columns_of(p)));
  }
}

[[noreturn]] void refuse_distribution(int64_t row) {
  throw std::invalid_argument("probabilities: distribution " + std::to_string(row) +
                              " has a value outside of 0..1, or its sum exceeds 1");
}

[[noreturn]] void refuse_data(int64_t symbol) {
  throw std::invalid_argument("data: damaged or truncated at symbol " + std::to_string(symbol));
}

void check_symbols(const Symbols& symbols, int64_t n) {
  uint16_t largest = 0;
  for (size_t i = 0; i < symbols.size(); ++i) largest = std::max(largest, symbols.data()[i]);
  if (largest >= n) {
    throw std::invalid_argument("symbols: expected 0.." + std::to_string(n - 1) + ", found " +
                                std::to_string(largest));
  }
}

// One distribution per symbol, or one for all.
template <typename A>
void check_rows(const A& model, const Symbols& symbols) {
  require(model.shape(0) == 1 || model.shape(0) == symbols.size(),
          "symbols: expected one per distribution");
}

// --- intervals
// ------------------------------------------------------------------------------------

NewArray<uint32_t, 2> cdf_starts(const Probabilities& p) {
  check_probabilities(p);
  const int64_t n = columns_of(p);
  auto starts = new_array<uint32_t>(p.shape(0), p.shape(1) + 1);
  nb::gil_scoped_release release;
  const FloatControl control;
  for (int64_t t = 0; t < rows_of(p); ++t) {
    if (!kernels().cdf_starts(p.data() + t * n, n, starts.data() + t * (n + 1)))
      refuse_distribution(t);
  }
  return starts;
}

NewArray<int64_t, 2> cdf_reference(const Probabilities& p) {
  check_probabilities(p);
  const int64_t n = columns_of(p);
  auto cdf = new_array<int64_t>(p.shape(0), p.shape(1));
  nb::gil_scoped_release release;
  const FloatControl control;
  for (int64_t t = 0; t < rows_of(p); ++t) {
    if (!kernels().cdf_reference(p.data() + t * n, n, cdf.data() + t * n)) {
      throw std::invalid_argument("probabilities: distribution " + std::to_string(t) +
                                  " has a value outside of 0..1");
    }
  }
  return cdf;
}

// --- the range coder: intervals are found without the interpreter lock, then coded with it, so
// that threads that share a coder by mistake harm nothing but its output
// -----------------------------------

void push_probabilities(RangeEncoder& self, const Symbols& symbols, const Probabilities& p) {
  check_probabilities(p);
  require(p.shape(0) == symbols.size(), "symbols: expected one per distribution");
  const int64_t n = columns_of(p);
  std::vector<Interval> intervals(symbols.size());
  {
    nb::gil_scoped_release release;
    const FloatControl control;
    check_symbols(symbols, n);
    for (size_t t = 0; t < intervals.size(); ++t) {
      const float* row = p.data() + static_cast<int64_t>(t) * n;
      intervals[t] = kernels().cdf_interval(row, n, symbols.data()[t]);
      if (intervals[t].width == 0) refuse_distribution(static_cast<int64_t>(t));
    }
  }
  for (const Interval& interval : intervals) self.encode(interval);
}

void push_starts(RangeEncoder& self, const Symbols& symbols, const Starts& starts) {
  check_rows(starts, symbols);
  const int64_t n = columns_of(starts) - 1;
  {
    nb::gil_scoped_release release;
    for (int64_t t = 0; t < rows_of(starts); ++t) check_starts(starts.data() + t * (n + 1), n);
    check_symbols(symbols, n);
  }
  const int64_t step = rows_of(starts) == 1 ? 0 : n + 1;
  const uint32_t* row = starts.data();
  for (size_t t = 0; t < symbols.size(); ++t, row += step) {
    const uint16_t symbol = symbols.data()[t];
    self.encode({row[symbol], row[symbol + 1] - row[symbol]});
  }
}

nb::bytes flush_range(RangeEncoder& self) {
  std::vector<uint8_t> out;
  self.flush(out);
  return to_bytes(out);
}

struct OwningRangeDecoder {
  explicit OwningRangeDecoder(const nb::bytes& bytes)
      : data(bytes_begin(bytes), bytes_begin(bytes) + bytes.size()),
        decoder(data.data(), data.size()) {}
  std::vector<uint8_t> data;
  RangeDecoder decoder;
};

// find(t, target, interval) gives symbol t, or -1.
template <typename Find>
NewArray<uint16_t, 1> pull(OwningRangeDecoder& self, int64_t count, Find find) {
  require(count >= 0, "count: must not be negative");
  RangeDecoder decoder = self.decoder;
  std::vector<uint16_t> symbols;
  {
    nb::gil_scoped_release release;
    const FloatControl control;
    symbols.reserve(static_cast<size_t>(std::min(count, kMaxReserved)));
    for (int64_t t = 0; t < count; ++t) {
      Interval interval;
      const int64_t symbol = find(t, decoder.target(), interval);
      if (symbol < 0 || decoder.overrun()) refuse_data(t);
      decoder.consume(interval);
      symbols.push_back(static_cast<uint16_t>(symbol));
    }
  }
  self.decoder = decoder;
  return to_array(std::move(symbols));
}

NewArray<uint16_t, 1> pull_probabilities(OwningRangeDecoder& self, const Probabilities& p) {
  check_probabilities(p);
  const int64_t n = columns_of(p);
  return pull(self, rows_of(p), [&](int64_t t, uint32_t target, Interval& interval) {
    const float* row = p.data() + t * n;
    const int64_t symbol = kernels().cdf_find(row, n, target, &interval);
    if (symbol < 0 && kernels().cdf_interval(row, n, 0).width == 0) refuse_distribution(t);
    return symbol;
  });
}

NewArray<uint16_t, 1> pull_starts(OwningRangeDecoder& self, const Starts& starts, int64_t count) {
  const int64_t n = columns_of(starts) - 1;
  if (rows_of(starts) == 1) {
    const CdfTable table(starts.data(), n);
    return pull(self, count, [&](int64_t, uint32_t target, Interval& interval) {
      const int64_t symbol = table.find(target);
      if (symbol >= 0) interval = table.interval(symbol);
      return symbol;
    });
  }
  require(count == rows_of(starts), "count: expected one distribution per symbol");
  return pull(self, count, [&](int64_t t, uint32_t target, Interval& interval) -> int64_t {
    const uint32_t* row = starts.data() + t * (n + 1);
    check_starts(row, n);
    const uint32_t* above = std::upper_bound(row, row + n + 1, target);
    if (above == row + n + 1) return -1;
    interval = {above[-1], above[0] - above[-1]};
    return above - row - 1;
  });
}

// --- the reference's coder -----------------------------------------------------------------------

constexpr int64_t kMaxSum = 1 << 25;  // beyond any sum that the reference's rule makes

void check_reference(const ReferenceCdf& cdf) {
  const int64_t n = columns_of(cdf);
  require(n >= kMinSymbols && n <= kMaxSymbols, "cdf: expected 2..65536 symbols");
  bool rises = true;
  for (int64_t t = 0; t < rows_of(cdf); ++t) {
    const int64_t* row = cdf.data() + t * n;
    rises &= row[0] > 0 && row[n - 1] <= kMaxSum;
    for (int64_t i = 1; i < n; ++i) rises &= row[i - 1] < row[i];
  }
  require(rises, "cdf: expected sums that rise from above 0 to at most 2^25");
}

void push_reference(ArithmeticEncoder& self, const Symbols& symbols, const ReferenceCdf& cdf) {
  check_rows(cdf, symbols);
  check_reference(cdf);
  const int64_t n = columns_of(cdf);
  check_symbols(symbols, n);
  const ArithmeticEncoder::Mark before = self.mark();
  try {
    for (size_t t = 0; t < symbols.size(); ++t) {
      const int64_t row = cdf.shape(0) == 1 ? 0 : static_cast<int64_t>(t);
      self.encode(cdf.data() + row * n, symbols.data()[t]);
    }
  } catch (...) {
    self.rewind(before);
    throw;
  }
}

nb::bytes flush_reference(ArithmeticEncoder& self) {
  std::vector<uint8_t> out;
  self.flush(out);
  return to_bytes(out);
}

struct OwningArithmeticDecoder {
  explicit OwningArithmeticDecoder(const nb::bytes& bytes)
      : data(bytes_begin(bytes), bytes_begin(bytes) + bytes.size()),
        decoder(data.data(), data.size()) {}
  std::vector<uint8_t> data;
  ArithmeticDecoder decoder;
};

// As many symbols as there are, up to `count`.
NewArray<uint16_t, 1> pull_reference(OwningArithmeticDecoder& self, const ReferenceCdf& cdf,
                                     int64_t count) {
  check_reference(cdf);
  require(count >= 0, "count: must not be negative");
  require(rows_of(cdf) == 1 || rows_of(cdf) == count,
          "count: expected one distribution per symbol");
  const int64_t n = columns_of(cdf);
  std::vector<uint16_t> symbols;
  symbols.reserve(static_cast<size_t>(std::min(count, kMaxReserved)));
  for (int64_t t = 0; t < count; ++t) {
    const int64_t row = rows_of(cdf) == 1 ? 0 : t;
    const int64_t symbol = self.decoder.decode(cdf.data() + row * n, n);
    if (symbol == ArithmeticDecoder::kDamaged) refuse_data(t);
    if (symbol == ArithmeticDecoder::kEnd) break;
    symbols.push_back(static_cast<uint16_t>(symbol));
  }
  return to_array(std::move(symbols));
}

}  // namespace

void bind_coders(nb::module_& m) {
  m.def("cdf_starts", cdf_starts, "probabilities"_a,
        "Sums of interval widths uint32 [T, n + 1] of distributions float32 [T, n], version 1.");
  m.def("cdf_reference", cdf_reference, "probabilities"_a,
        "The reference's inclusive sums int64 [T, n] of distributions float32 [T, n].");
  nb::class_<RangeEncoder>(m, "RangeEncoder", "The range coder of version 1.")
      .def(nb::init<>())
      .def("push_probabilities", push_probabilities, "symbols"_a, "probabilities"_a)
      .def("push_starts", push_starts, "symbols"_a, "starts"_a)
      .def("flush", flush_range);
  nb::class_<OwningRangeDecoder>(m, "RangeDecoder", "The inverse of RangeEncoder.")
      .def(nb::init<const nb::bytes&>(), "data"_a)
      .def("pull_probabilities", pull_probabilities, "probabilities"_a)
      .def("pull_starts", pull_starts, "starts"_a, "count"_a)
      .def_prop_ro("complete",
                   [](const OwningRangeDecoder& self) { return self.decoder.complete(); });
  nb::class_<ArithmeticEncoder>(m, "ArithmeticEncoder", "The reference's arithmetic coder.")
      .def(nb::init<>())
      .def("push", push_reference, "symbols"_a, "cdf"_a)
      .def("flush", flush_reference);
  nb::class_<OwningArithmeticDecoder>(m, "ArithmeticDecoder", "The inverse of ArithmeticEncoder.")
      .def(nb::init<const nb::bytes&>(), "data"_a)
      .def("pull", pull_reference, "cdf"_a, "count"_a)
      .def_prop_ro("position",
                   [](const OwningArithmeticDecoder& self) { return self.decoder.position(); });
}

}  // namespace encodec_fast
