-- What wrk's own summary lacks: the 99.9th percentile, in a line that is easy to read.
function done(summary, latency, requests)
   local failed = summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout
   io.write(string.format("result %d %d %d %d %d %d\n", summary.requests, summary.duration, failed,
      latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
