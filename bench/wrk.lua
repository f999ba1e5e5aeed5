-- wrk script: requests go out DEPTH at a time, in one write; prints a line of JSON in the end.
-- wrk -s wrk.lua URL -- DEPTH
init = function(args)
  local batch = {}
  for i = 1, tonumber(args[1]) do
    batch[i] = wrk.format(nil)
  end
  requests = table.concat(batch)
end

request = function()
  return requests
end

done = function(summary, latency)
  local e = summary.errors
  print(string.format(
    '{"answers": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "p999_us": %d, "errors": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), e.connect + e.read + e.write + e.status + e.timeout))
end
