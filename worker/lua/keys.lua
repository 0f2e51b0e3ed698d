local function job_key(id) return JOB .. id end
local function results_key(id) return RESULTS .. id end
local function executions_key(id) return EXECUTIONS .. id end
local function execution_key(id, execution)
    return EXECUTION .. id .. ':' .. execution
end
