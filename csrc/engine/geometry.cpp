#include "engine/geometry.h"

#include <algorithm>
#include <tuple>

namespace encodec_fast {

bool BlockRows::operator==(const BlockRows& other) const {
  const auto all = [](const BlockRows& b) {
    return std::tie(b.fresh, b.last, b.rows, b.input, b.add, b.front, b.behind, b.keep);
  };
  return all(*this) == all(other);
}

BlockRows Geometry::advance(LaneRows& lane, const Block& block) const {
  const size_t count = graph_.ops().size();
  lane.ends.resize(count + 1);
  lane.kept.resize(layout_.forms().size());
  const std::vector<int64_t> before = lane.ends;
  std::vector<int64_t>& after = lane.ends;
  const auto value = [](int number) { return static_cast<size_t>(number); };
  BlockRows b;
  b.fresh = !lane.started;
  b.last = block.last;
  after[0] += block.rows;
  b.rows.push_back(block.rows);
  for (size_t i = 0; i < count; ++i) {
    const Op& o = graph_.ops()[i];
    after[i + 1] =
        result_rows(o, after[value(o.input)], o.add < 0 ? 0 : after[value(o.add)], block.last);
    b.rows.push_back(after[i + 1] - before[i + 1]);
    b.input.push_back(next_row(o, before[value(o.input)], before[i + 1]) - before[value(o.input)]);
    b.add.push_back(o.add < 0 ? 0 : before[i + 1] - before[value(o.add)]);
  }
  for (size_t f = 0; f < layout_.forms().size(); ++f) {
    const Layout::Form& form = layout_.forms()[f];
    const int64_t end = after[value(form.value)];
    const bool pads = form.reader >= 0;
    b.front.push_back(b.fresh && pads ? start_padding(op(form.reader)) : lane.kept[f]);
    b.behind.push_back(b.last && pads ? end_padding(op(form.reader), end) : 0);
    // Windows of results that are to come, what is still to be added, and what a mirrored end
    // reaches into.
    int64_t from = end;
    for (const int i : form.adds) from = std::min(from, after[value(i + 1)]);
    for (const int i : form.inputs) {
      const Op& o = op(i);
      from = std::min(from, next_row(o, end, after[value(i + 1)]));
      if (padded(o) && o.reflect) from = std::min(from, end - o.pad_right - o.stride);
    }
    const int64_t begin = before[value(form.value)];
    b.keep.push_back(std::max(b.last ? end : from, begin - b.front[f]) - begin);
    lane.kept[f] = b.rows[value(form.value)] - b.keep[f];
  }
  lane.started = true;
  if (block.last) {
    lane = {};
  } else {
    forget_frames(lane.ends);
  }
  return b;
}

// Behind its start a graph does the same at every frame: streams that count from as late as they
// can are at the same place whenever they began. No count falls below zero, where result_rows()
// would cut it off.
void Geometry::forget_frames(std::vector<int64_t>& ends) const {
  const auto frame_rows = [&](size_t value) {
    const int v = static_cast<int>(value);
    return graph_.down() * graph_.up_of(v) / graph_.down_of(v);
  };
  int64_t frames = ends.front() / frame_rows(0);
  for (size_t v = 0; v < ends.size(); ++v) frames = std::min(frames, ends[v] / frame_rows(v));
  for (size_t v = 0; v < ends.size(); ++v) ends[v] -= frames * frame_rows(v);
}

std::vector<PadRow> Geometry::padding(int index, const BlockRows& block) const {
  const Op& o = op(index);
  const size_t form = static_cast<size_t>(layout_.plan(index).input);
  const int64_t count = block.rows[static_cast<size_t>(o.input)];
  const int64_t left = block.fresh ? start_padding(o) : 0;
  const int64_t right = block.behind[form];
  const bool mirrored_start = o.reflect && start_ == Start::kExact && block.fresh;
  // A whole signal shorter than its padding is first extended by zeros, mirrored, and cut again
  // (docs/program.md).
  const int64_t extended = mirrored_start ? std::max(count, std::max(left, right) + 1) : count;
  std::vector<PadRow> rows;
  const auto add = [&](int64_t row, bool mirrored) {
    int64_t source = row < 0 ? -row : row;
    if (source >= extended) source = 2 * (extended - 1) - source;
    rows.push_back({row, source, source >= count || !mirrored});
  };
  for (int64_t row = -left; row < 0; ++row) add(row, mirrored_start);
  for (int64_t row = count; row < count + right; ++row) add(row, o.reflect);
  return rows;
}

bool Geometry::finishes(int index, const BlockRows& block) const {
  const Op& o = op(index);
  return !o.norm.scale.empty() || (o.trim_left > 0 && (block.last || block.fresh));
}

int64_t Geometry::product_rows(int index, const BlockRows& block) const {
  const Op& o = op(index);
  if (o.kind != OpKind::kConvTranspose) return block.rows[static_cast<size_t>(index) + 1];
  const bool one_more = block.last && finishes(index, block);
  return block.rows[static_cast<size_t>(o.input)] + (one_more ? 1 : 0);
}

}  // namespace encodec_fast
