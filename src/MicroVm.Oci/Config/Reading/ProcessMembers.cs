using MicroVm.Json;

namespace MicroVm.Oci.Config.Reading;

/// <summary>The members that config.md, "Process" defines, and where they go.</summary>
internal static class ProcessMembers
{
    internal static readonly Members<ConsoleSize> ConsoleSize = Members.Of<ConsoleSize>(
        ("height", static (v, ref json) => v.Height = json.UInt32()),
        ("width", static (v, ref json) => v.Width = json.UInt32()));

    internal static readonly Members<User> User = Members.Of<User>(
        ("uid", static (v, ref json) => v.Uid = json.UInt32()),
        ("gid", static (v, ref json) => v.Gid = json.UInt32()),
        ("umask", static (v, ref json) => v.Umask = json.UInt32()),
        ("additionalGids", static (v, ref json) => v.AdditionalGids = json.Numbers()));

    internal static readonly Members<CapabilityNames> CapabilityNames = Members.Of<CapabilityNames>(
        ("bounding", static (v, ref json) => v.Bounding = json.Texts()),
        ("effective", static (v, ref json) => v.Effective = json.Texts()),
        ("inheritable", static (v, ref json) => v.Inheritable = json.Texts()),
        ("permitted", static (v, ref json) => v.Permitted = json.Texts()),
        ("ambient", static (v, ref json) => v.Ambient = json.Texts()));

    internal static readonly Members<Rlimit> Rlimit = Members.Of<Rlimit>(
        ("type", static (v, ref json) => v.Type = json.Text()),
        ("hard", static (v, ref json) => v.Hard = json.UInt64()),
        ("soft", static (v, ref json) => v.Soft = json.UInt64()));

    internal static readonly Members<Scheduler> Scheduler = Members.Of<Scheduler>(
        ("policy", static (v, ref json) => v.Policy = json.Text()),
        ("nice", static (v, ref json) => v.Nice = json.Int32()),
        ("priority", static (v, ref json) => v.Priority = json.Int32()),
        ("flags", static (v, ref json) => v.Flags = json.Texts()),
        ("runtime", static (v, ref json) => v.Runtime = json.UInt64()),
        ("deadline", static (v, ref json) => v.Deadline = json.UInt64()),
        ("period", static (v, ref json) => v.Period = json.UInt64()));

    internal static readonly Members<IoPriority> IoPriority = Members.Of<IoPriority>(
        ("class", static (v, ref json) => v.Class = json.Text()),
        ("priority", static (v, ref json) => v.Priority = json.Int32()));

    internal static readonly Members<ExecCpuAffinity> ExecCpuAffinity = Members.Of<ExecCpuAffinity>(
        ("initial", static (v, ref json) => v.Initial = json.Text()),
        ("final", static (v, ref json) => v.Final = json.Text()));

    internal static readonly Members<Process> Process = Members.Of<Process>(
        ("terminal", static (v, ref json) => v.Terminal = json.Flag()),
        ("consoleSize", static (v, ref json) => v.ConsoleSize = json.Object(ConsoleSize)),
        ("user", static (v, ref json) => v.User = json.Object(User)),
        ("args", static (v, ref json) => v.Args = json.Texts()),
        ("env", static (v, ref json) => v.Env = json.Texts()),
        ("cwd", static (v, ref json) => v.Cwd = json.Text()),
        ("capabilities", static (v, ref json) => v.Capabilities = json.Object(CapabilityNames)),
        ("rlimits", static (v, ref json) => v.Rlimits = json.List(Rlimit)),
        ("noNewPrivileges", static (v, ref json) => v.NoNewPrivileges = json.Flag()),
        ("apparmorProfile", static (v, ref json) => v.ApparmorProfile = json.Text()),
        ("oomScoreAdj", static (v, ref json) => v.OomScoreAdj = json.Int32()),
        ("scheduler", static (v, ref json) => v.Scheduler = json.Object(Scheduler)),
        ("selinuxLabel", static (v, ref json) => v.SelinuxLabel = json.Text()),
        ("ioPriority", static (v, ref json) => v.IoPriority = json.Object(IoPriority)),
        ("execCPUAffinity", static (v, ref json) => v.ExecCPUAffinity = json.Object(ExecCpuAffinity)));
}
