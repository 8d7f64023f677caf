-- Requests by one method for the paths that a file has, in no order.
local paths, head, tail = {}, "", ""

function init(words)
    for path in io.lines(words[2]) do
        paths[#paths + 1] = path
    end
    -- Each thread's own order: where its table lies is another place than the other's.
    math.randomseed(tonumber(tostring(paths):match("0x(%x+)"), 16) % 2 ^ 31)
    -- All requests are one but for the path, and are put together once.
    head, tail = wrk.format(words[1], "/@"):match("^(.-)/@(.*)$")
end

function request()
    return head .. paths[math.random(#paths)] .. tail
end
