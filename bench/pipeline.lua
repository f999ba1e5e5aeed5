-- wrk script: requests go out 24 deep, all of them in one write, on every connection.
local depth = 24

init = function(args)
  local batch = {}
  for i = 1, depth do
    batch[i] = wrk.format(nil)
  end
  requests = table.concat(batch)
end

request = function()
  return requests
end
