using MicroVm.Oci.Config;

namespace MicroVm.Oci.Processes;

/// <summary>struct sched_attr's fields (linux/sched/types.h).</summary>
public readonly record struct SchedulingAttributes(
    uint Policy, int Nice, uint Priority, ulong Flags, ulong Runtime, ulong Deadline, ulong Period);

/// <summary>Resolves <c>process.scheduler</c>, <c>process.ioPriority</c> and <c>linux.personality</c>.</summary>
public static class Scheduling
{
    /// <summary>Policies by name (linux/sched.h).</summary>
    public static readonly IReadOnlyDictionary<string, uint> Policies = new Dictionary<string, uint>(StringComparer.Ordinal)
    {
        ["SCHED_OTHER"] = 0,
        ["SCHED_FIFO"] = 1,
        ["SCHED_RR"] = 2,
        ["SCHED_BATCH"] = 3,
        ["SCHED_ISO"] = 4,
        ["SCHED_IDLE"] = 5,
        ["SCHED_DEADLINE"] = 6,
    };

    /// <summary>Flags by name (linux/sched.h).</summary>
    public static readonly IReadOnlyDictionary<string, ulong> Flags = new Dictionary<string, ulong>(StringComparer.Ordinal)
    {
        ["SCHED_FLAG_RESET_ON_FORK"] = 1,
        ["SCHED_FLAG_RECLAIM"] = 2,
        ["SCHED_FLAG_DL_OVERRUN"] = 4,
        ["SCHED_FLAG_KEEP_POLICY"] = 8,
        ["SCHED_FLAG_KEEP_PARAMS"] = 0x10,
        ["SCHED_FLAG_UTIL_CLAMP_MIN"] = 0x20,
        ["SCHED_FLAG_UTIL_CLAMP_MAX"] = 0x40,
    };

    private const uint RealTimeClass = 1, BestEffortClass = 2, IdleClass = 3;
    private const int ClassShift = 13;

    /// <summary>Resolves the scheduler; null when none is asked for.</summary>
    /// <exception cref="SpecException">A policy or flag is unknown, or a value is out of range.</exception>
    public static SchedulingAttributes? Resolve(Scheduler? scheduler)
    {
        if (scheduler is null)
        {
            return null;
        }

        if (scheduler.Policy is null || !Policies.TryGetValue(scheduler.Policy, out uint policy))
        {
            throw new SpecException($"invalid scheduler policy: {scheduler.Policy}");
        }

        int nice = scheduler.Nice ?? 0;
        if (nice is < -20 or > 19)
        {
            throw new SpecException($"invalid scheduler.nice: {nice}");
        }

        bool realTime = scheduler.Policy is "SCHED_FIFO" or "SCHED_RR";
        int priority = scheduler.Priority ?? 0;
        if (priority is < 0 or > 99 || (priority != 0 && !realTime))
        {
            throw new SpecException($"scheduler.priority {priority} is not possible with {scheduler.Policy}: SCHED_FIFO and SCHED_RR have 1 to 99, others 0");
        }

        bool deadline = scheduler.Policy == "SCHED_DEADLINE";
        if (!deadline && ((scheduler.Runtime ?? 0) | (scheduler.Deadline ?? 0) | (scheduler.Period ?? 0)) != 0)
        {
            throw new SpecException("scheduler runtime/deadline/period can only be specified for SCHED_DEADLINE policy");
        }

        ulong flags = 0;
        foreach (string name in scheduler.Flags ?? [])
        {
            flags |= Flags.TryGetValue(name ?? "", out ulong flag) ? flag : throw new SpecException($"invalid scheduler flag: {name}");
        }

        return new SchedulingAttributes(
            policy, nice, (uint)priority, flags, scheduler.Runtime ?? 0, scheduler.Deadline ?? 0, scheduler.Period ?? 0);
    }

    /// <summary>ioprio_set(2)'s value; null when none is asked for.</summary>
    /// <exception cref="SpecException">The class is unknown or the priority is not 0 to 7.</exception>
    public static uint? Resolve(IoPriority? priority)
    {
        if (priority is null)
        {
            return null;
        }

        uint @class = priority.Class switch
        {
            "IOPRIO_CLASS_RT" => RealTimeClass,
            "IOPRIO_CLASS_BE" => BestEffortClass,
            "IOPRIO_CLASS_IDLE" => IdleClass,
            _ => throw new SpecException($"invalid ioPriority.class: {priority.Class}"),
        };
        int value = priority.Priority ?? 0;
        return value is >= 0 and <= 7
            ? (@class << ClassShift) | (uint)value
            : throw new SpecException($"ioPriority.priority {value} is out of range: 0 to 7");
    }

    /// <summary>personality(2)'s value; null when none is asked for.</summary>
    /// <exception cref="SpecException">The domain is unknown, or flags are given.</exception>
    public static uint? Resolve(Personality? personality)
    {
        if (personality is null)
        {
            return null;
        }

        if (personality.Flags is { Count: > 0 })
        {
            throw new SpecException("unsupported personality flags: [" + string.Join(' ', personality.Flags) + "]");
        }

        return personality.Domain switch
        {
            "LINUX" => 0,
            "LINUX32" => 8,
            _ => throw new SpecException($"invalid personality domain {personality.Domain}"),
        };
    }
}
