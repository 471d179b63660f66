using MicroVm.Json;

namespace MicroVm.Oci.Config.Reading;

/// <summary>The members that config.md defines, and where they go.</summary>
internal static class SpecMembers
{
    internal static readonly Members<Root> Root = Members.Of<Root>(
        ("path", static (v, ref json) => v.Path = json.Text()),
        ("readonly", static (v, ref json) => v.Readonly = json.Flag()));

    internal static readonly Members<IdMapping> IdMapping = Members.Of<IdMapping>(
        ("containerID", static (v, ref json) => v.ContainerID = json.UInt32()),
        ("hostID", static (v, ref json) => v.HostID = json.UInt32()),
        ("size", static (v, ref json) => v.Size = json.UInt32()));

    internal static readonly Members<Mount> Mount = Members.Of<Mount>(
        ("destination", static (v, ref json) => v.Destination = json.Text()),
        ("type", static (v, ref json) => v.Type = json.Text()),
        ("source", static (v, ref json) => v.Source = json.Text()),
        ("options", static (v, ref json) => v.Options = json.Texts()),
        ("uidMappings", static (v, ref json) => v.UidMappings = json.List(IdMapping)),
        ("gidMappings", static (v, ref json) => v.GidMappings = json.List(IdMapping)));

    internal static readonly Members<Hook> Hook = Members.Of<Hook>(
        ("path", static (v, ref json) => v.Path = json.Text()),
        ("args", static (v, ref json) => v.Args = json.Texts()),
        ("env", static (v, ref json) => v.Env = json.Texts()),
        ("timeout", static (v, ref json) => v.Timeout = json.Int32()));

    internal static readonly Members<Hooks> Hooks = Members.Of<Hooks>(
        ("prestart", static (v, ref json) => v.Prestart = json.List(Hook)),
        ("createRuntime", static (v, ref json) => v.CreateRuntime = json.List(Hook)),
        ("createContainer", static (v, ref json) => v.CreateContainer = json.List(Hook)),
        ("startContainer", static (v, ref json) => v.StartContainer = json.List(Hook)),
        ("poststart", static (v, ref json) => v.Poststart = json.List(Hook)),
        ("poststop", static (v, ref json) => v.Poststop = json.List(Hook)));

    internal static readonly Members<Spec> Spec = Members.Of<Spec>(
        ("ociVersion", static (v, ref json) => v.OciVersion = json.Text()),
        ("process", static (v, ref json) => v.Process = json.Object(ProcessMembers.Process)),
        ("root", static (v, ref json) => v.Root = json.Object(Root)),
        ("hostname", static (v, ref json) => v.Hostname = json.Text()),
        ("domainname", static (v, ref json) => v.Domainname = json.Text()),
        ("mounts", static (v, ref json) => v.Mounts = json.List(Mount)),
        ("hooks", static (v, ref json) => v.Hooks = json.Object(Hooks)),
        ("annotations", static (v, ref json) => v.Annotations = json.TextMap()),
        ("linux", static (v, ref json) => v.Linux = json.Object(LinuxMembers.Linux)));
}
