// Runs a graph on a device for a batch of streams: engine/stream.h for CUDA. Every operation takes
// the blocks of all streams at once.
#pragma once

#include <memory>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/runtime.h"
#include "cuda/tape.h"
#include "cuda/weights.h"
#include "engine/geometry.h"
#include "engine/layout.h"

namespace encodec_fast::cuda {

class Executor {
 public:
  // Throws std::invalid_argument on a bad lane count, DeviceError.
  Executor(std::shared_ptr<const DeviceGraph> graph, int64_t lanes, Start start, Queue& queue);

  int64_t lanes() const { return static_cast<int64_t>(lane_.size()); }
  const Graph& graph() const { return graph_->graph(); }

  // Where the rows of the next blocks go, on the device: [sum of rows][in_channels], lanes one
  // after the other. Checks the blocks; throws std::invalid_argument and changes nothing if one
  // cannot be run. Until finished() the lanes count as failed.
  float* input(const std::vector<Block>& blocks);
  // Queues the work of these blocks.
  void run();
  // [sum of output_rows()][out_channels] on the device, until the next input().
  float* result() { return output_.floats(); }
  // The queue was waited for, without an error.
  void finished();

  // Rows of the result per lane; known after input().
  const std::vector<int64_t>& output_rows() const { return output_rows_; }

  void reset();
  void reset(int64_t lane);

 private:
  struct Table {
    size_t place;
    int64_t count, longest;
  };
  struct State {
    DeviceMemory hidden, cell;  // [lanes][hidden]
  };
  struct Outputs {
    float* out;
    float* elu;
  };

  const Op& op(int index) const { return graph().ops()[static_cast<size_t>(index)]; }
  int ops() const { return static_cast<int>(graph().ops().size()); }
  const BlockRows& block(size_t w) const { return *blocks_[w].rows; }
  int64_t rows(int value, size_t w) const { return block(w).rows[static_cast<size_t>(value)]; }
  float* body(int form, size_t w) const { return body_[static_cast<size_t>(form) * count() + w]; }
  size_t count() const { return blocks_.size(); }

  // A block of a lane, and the same numbers for all lanes that are at the same place.
  struct LaneBlock {
    int64_t lane;
    std::shared_ptr<const BlockRows> rows;
    bool operator==(const LaneBlock& other) const {
      return lane == other.lane && (rows == other.rows || *rows == *other.rows);
    }
  };
  struct Advance {
    Block block;
    std::shared_ptr<const LaneRows> before, after;
    std::shared_ptr<const BlockRows> rows;
  };

  // Planning: executor.cpp.
  LaneBlock advance(size_t lane, const Block& block);
  void lay_out();
  void make_history();
  void record();
  Table table(const std::vector<Copy>& copies);
  Table table(const std::vector<Elements>& parts);
  void record_copies(const std::vector<Copy>& copies);
  void record_activation(const std::vector<Elements>& parts);
  Outputs outputs(int value, size_t w) const;
  void take_input();
  void add_history(int value, std::vector<Copy>& copies) const;
  void add_other_forms(int value, std::vector<Copy>& copies) const;
  void add_kept(const std::vector<int>& forms, std::vector<Copy>& copies) const;
  float* history(size_t form, size_t w) const;

  // Operations: executor_ops.cpp.
  void record_op(int index);
  void add_padding(int index, std::vector<Copy>& copies) const;
  const float* input_of(int index, size_t w) const;
  const float* added(int index, size_t w) const;
  void record_product(std::vector<Part> parts, const Matrix& weight, int64_t a_stride, int index);
  void record_conv(int index);
  void record_trim(int index, const std::vector<const float*>& products);
  void record_norm(int index, const std::vector<const float*>& products);
  void record_lstm(int index, std::vector<Copy>& after);
  void record_steps(int index, const std::vector<LstmPart>& parts);
  void size_scratch();

  std::shared_ptr<const DeviceGraph> graph_;
  Start start_;
  Queue& queue_;
  Layout layout_;
  Geometry geometry_;
  const std::shared_ptr<const LaneRows> fresh_ = std::make_shared<LaneRows>();
  std::vector<std::shared_ptr<const LaneRows>> lane_;
  Advance advance_;  // the last one
  std::vector<bool> failed_;
  std::vector<int64_t> output_rows_;

  // What the tape was recorded for; it holds as long as these are the same.
  std::vector<LaneBlock> blocks_;
  bool recorded_ = false;
  Tape tape_;

  std::vector<float*> body_;     // [form][w]
  std::vector<int64_t> result_;  // [w]: where its result begins, floats
  std::vector<DeviceMemory> slots_;
  std::vector<DeviceMemory> history_;  // per form: [lanes][capacity]
  std::vector<int64_t> capacity_;      // per form, floats
  std::vector<State> states_;          // per op
  DeviceMemory input_, output_;
  DeviceMemory product_, gates_, hidden_, moments_, norms_;
};

}  // namespace encodec_fast::cuda
