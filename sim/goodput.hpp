// Closed forms of training that fails: how often to save, and what share of the time is of use.
//
// Failures are exponential with mean `mtbf` between any two of them, whatever the job is doing. A restart takes
// `restart` and begins anew where another failure hits it.
#pragma once

#include "sim/long_time.hpp"

namespace trainyard::sim {

// How often training is saved. A save stops training for `exposed`; it can be restored from `background` later on,
// when storage has it (0: synchronous). The next save begins no sooner than that.
struct CheckpointTimes {
  LongDuration interval;  // of training between two saves
  LongDuration exposed;
  LongDuration background;

  LongDuration trained_between() const { return interval < background ? background : interval; }
};

// The interval that loses least, to first order: sqrt(2 C M). Young, CACM 17, 1974.
LongDuration young_interval(LongDuration exposed, LongDuration mtbf);

// To a higher order. Daly, Future Generation Computer Systems 22, 2006, equation 37; the mtbf where a save takes twice
// as long or longer.
LongDuration daly_interval(LongDuration exposed, LongDuration mtbf);

// Expected time from one save to the next with everything that happens in between:
// M exp(R/M) (exp((tau + C)/M) - 1), in seconds. Daly, equation 13. A save that storage has only later costs its way
// there with every failure, as a longer restart would: R + background. Infinite where it never comes to that.
double expected_segment_s(const CheckpointTimes& checkpoint, LongDuration restart, LongDuration mtbf);

// The share of that time in which the training was done that is kept.
double expected_goodput(const CheckpointTimes& checkpoint, LongDuration restart, LongDuration mtbf);

}  // namespace trainyard::sim
