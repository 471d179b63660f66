using Google.Protobuf;
using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;
using MicroVm.Oci.Processes;
using MicroVm.Oci.Seccomp;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>Resolves a process, the container's or one of <c>exec</c>.</summary>
internal static class ProcessPlan
{
    /// <summary>Builds the agent's view of a validated process.</summary>
    /// <exception cref="Oci.SpecException">Something cannot be resolved.</exception>
    internal static Proto.Process Build(Process process, Oci.Config.Linux linux, ICollection<string> warnings)
    {
        CapabilitySets capabilities = CapabilitySets.Resolve(process.Capabilities, warnings);
        Proto.Process plan = new()
        {
            Terminal = process.Terminal ?? false,
            ConsoleWidth = process.ConsoleSize?.Width ?? 0,
            ConsoleHeight = process.ConsoleSize?.Height ?? 0,
            Cwd = process.Cwd,
            User = new Proto.User { Uid = process.User?.Uid ?? 0, Gid = process.User?.Gid ?? 0 },
            Capabilities = new Proto.Capabilities
            {
                Bounding = capabilities.Bounding,
                Effective = capabilities.Effective,
                Inheritable = capabilities.Inheritable,
                Permitted = capabilities.Permitted,
                Ambient = capabilities.Ambient,
            },
            NoNewPrivileges = process.NoNewPrivileges ?? false,
        };
        plan.Args.AddRange(process.Args);
        plan.Env.AddRange(ProcessEnvironment.Unique(process.Env ?? []));
        plan.User.AdditionalGids.AddRange(process.User?.AdditionalGids ?? []);
        plan.Rlimits.AddRange(ResourceLimit.Resolve(process.Rlimits)
            .Select(l => new Proto.Rlimit { Resource = l.Resource, Soft = l.Soft, Hard = l.Hard }));
        plan.CpuAffinity = UnsafeByteOperations.UnsafeWrap(Affinity(process.ExecCPUAffinity));
        Optional(plan, process, linux);
        return plan;
    }

    /// <summary>The guest's CPUs that an exec'd process is bound to, as a mask; empty without one. The guest numbers the VM's own CPUs.</summary>
    private static byte[] Affinity(ExecCpuAffinity? affinity)
    {
        string? list = string.IsNullOrEmpty(affinity?.Final) ? affinity?.Initial : affinity.Final;
        IReadOnlyList<int> cpus = CpuSet.Parse(list, "process.execCPUAffinity");
        byte[] mask = new byte[cpus.Count == 0 ? 0 : ((cpus[^1] / 64) + 1) * 8];
        foreach (int cpu in cpus)
        {
            mask[cpu / 8] |= (byte)(1 << (cpu % 8));
        }

        return mask;
    }

    private static void Optional(Proto.Process plan, Process process, Oci.Config.Linux linux)
    {
        if (process.User?.Umask is { } umask)
        {
            plan.User.Umask = umask;
        }

        if (process.OomScoreAdj is { } score)
        {
            plan.OomScoreAdj = score;
        }

        if (Scheduling.Resolve(process.IoPriority) is { } priority)
        {
            plan.IoPriority = priority;
        }

        if (Scheduling.Resolve(linux.Personality) is { } personality)
        {
            plan.Personality = personality;
        }

        if (Scheduling.Resolve(process.Scheduler) is { } s)
        {
            plan.Scheduler = new Proto.Scheduler
            {
                Policy = s.Policy,
                Nice = s.Nice,
                Priority = s.Priority,
                Flags = s.Flags,
                Runtime = s.Runtime,
                Deadline = s.Deadline,
                Period = s.Period,
            };
        }

        if (SeccompResolver.Resolve(linux.Seccomp) is { } profile)
        {
            plan.SeccompFilter = UnsafeByteOperations.UnsafeWrap(SeccompCompiler.Compile(profile));
            plan.SeccompFlags = profile.Flags;
        }
    }
}
