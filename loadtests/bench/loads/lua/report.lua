-- One line of JSON for loadtests/bench/loads/wrk.py. CPU time is counted from the first thread's first request on.
function report(summary, latency, threads)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"cpu_s":%.3f,"refused":%d,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    os.clock() - threads[1]:get("began"), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout
  ))
end
