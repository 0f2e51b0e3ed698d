-- Runs the commands in ARGV from `at` on, each preceded by its number of words.
local function run_commands(at, run)
    while at <= #ARGV do
        local words = tonumber(ARGV[at])
        run(unpack(ARGV, at + 1, at + words))
        at = at + words + 1
    end
end
