using MicroVm.Linux;

namespace MicroVm.Agent.Child;

/// <summary>What a child wrote to its report pipe: a milestone, or the step that failed and its errno.</summary>
/// <param name="Id">The step.</param>
/// <param name="Errno">OK for a milestone.</param>
public readonly record struct ChildReport(StepId Id, Errno Errno)
{
    /// <summary>The failure in a sentence, in runc's words where it has them.</summary>
    /// <param name="program">The executable's path, for a failed exec.</param>
    /// <param name="cwd">The working directory.</param>
    public string Describe(string program, string cwd)
    {
        string why = Text(Errno);
        return Id switch
        {
            StepId.Exec => $"exec {program}: {why}",
            StepId.WorkingDirectory => $"chdir to cwd (\"{cwd}\") set in config.json failed: {why}",
            StepId.WorkingDirectoryOutside =>
                "current working directory is outside of container mount namespace root -- possible container breakout attempt",
            StepId.Launch => $"starting the process's set-up: {why}",
            StepId.Forked => $"fork in the container's PID namespace: {why}",
            StepId.Seccomp => $"error loading seccomp filter into kernel: {why}",
            StepId.ProcMount => $"error mounting \"proc\": {why}",
            StepId.UserId => $"setting user and group of the user namespace: {why}",
            StepId.CgroupNamespace => $"unshare cgroup namespace: {why}",
            StepId.JoinNamespace => $"join namespace: {why}",
            StepId.Files => $"passing file descriptors: {why}",
            StepId.Session => $"setsid: {why}",
            StepId.Stdio => $"setting up stdio: {why}",
            StepId.ControllingTerminal => $"setctty: {why}",
            StepId.Signals => $"resetting signals: {why}",
            StepId.Rlimit => $"error setting rlimits: {why}",
            StepId.Scheduler => $"error setting scheduler: {why}",
            StepId.IoPriority => $"error setting io priority: {why}",
            StepId.CpuAffinity => $"error setting CPU affinity: {why}",
            StepId.Personality => $"error setting personality: {why}",
            StepId.NoNewPrivileges => $"error setting no_new_privs: {why}",
            StepId.BoundingSet => $"unable to apply bounding set: {why}",
            StepId.KeepCapabilities => $"unable to set keep caps: {why}",
            StepId.Groups => $"unable to set supplementary groups: {why}",
            StepId.Gid => $"unable to set gid: {why}",
            StepId.Uid => $"unable to set uid: {why}",
            StepId.Capabilities => $"unable to apply caps: {why}",
            StepId.AmbientCapabilities => $"unable to apply ambient caps: {why}",
            StepId.CloseFiles => $"close_range: {why}",
            _ => $"{Id}: {why}",
        };
    }

    /// <summary>An errno as Go programs print it: lower case.</summary>
    public static string Text(Errno errno)
    {
        string text = LinuxException.Text(errno);
        return text.Length > 1 && !char.IsUpper(text[1]) ? char.ToLowerInvariant(text[0]) + text[1..] : text;
    }
}
