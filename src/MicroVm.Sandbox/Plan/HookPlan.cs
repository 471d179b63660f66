using System.Globalization;
using MicroVm.Json;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>
/// Resolves the hooks that run in the container's namespaces, in the guest (runtime-spec config.md, "POSIX-platform Hooks").
/// createContainer's programs are the host's: each becomes an export, and must do without anything else of the host.
/// startContainer's programs are the container's.
/// </summary>
internal static class HookPlan
{
    /// <summary>Adds the hooks to <paramref name="plan"/>, and their programs to <paramref name="exports"/>, under names that begin with <paramref name="prefix"/>.</summary>
    /// <exception cref="SpecException">A hook is malformed, or its program cannot run in the VM.</exception>
    /// <exception cref="SandboxException">A program cannot be opened.</exception>
    internal static void Add(Proto.ContainerSpec plan, Spec spec, string id, string bundle, List<Export> exports, string prefix)
    {
        foreach ((Hook hook, string where) in All(spec.Hooks?.CreateContainer, "createContainer"))
        {
            Export export = Export.Open(
                string.Create(CultureInfo.InvariantCulture, $"{prefix}hook{exports.Count}"), hook.Path!, readOnly: true, $"{where}.path");
            exports.Add(export);
            if (StaticExecutable.Needs(hook.Path!) is { } interpreter)
            {
                throw SpecException.Unsupported(
                    $"{where}.path {hook.Path}",
                    $"it needs {interpreter}, which a VM has not got before the container's root is in place; a static executable needs nothing");
            }

            Proto.Hook resolved = Resolve(hook, spec, id, bundle, ContainerStatus.Creating);
            resolved.FsTag = Export.Tag;
            resolved.FsPath = export.GuestPath;
            plan.CreateContainerHooks.Add(resolved);
        }

        foreach ((Hook hook, _) in All(spec.Hooks?.StartContainer, "startContainer"))
        {
            plan.StartContainerHooks.Add(Resolve(hook, spec, id, bundle, ContainerStatus.Created));
        }
    }

    private static IEnumerable<(Hook Hook, string Where)> All(List<Hook>? hooks, string kind)
    {
        for (int i = 0; i < (hooks?.Count ?? 0); i++)
        {
            string where = $"hooks.{kind}[{i}]";
            if (hooks![i]?.Path is not ['/', ..])
            {
                throw new SpecException($"{where}.path must be an absolute path, it is \"{hooks[i]?.Path}\"");
            }

            if (hooks[i].Timeout <= 0)
            {
                throw new SpecException($"{where}.timeout must be greater than zero");
            }

            yield return (hooks[i], where);
        }
    }

    private static Proto.Hook Resolve(Hook hook, Spec spec, string id, string bundle, ContainerStatus status)
    {
        OciState state = new()
        {
            OciVersion = spec.OciVersion!,
            Id = id,
            Status = status,
            Pid = 0,
            Bundle = bundle,
            Annotations = spec.Annotations,
        };

        // No string before the member can hold this: quotes are escaped in JSON.
        const string pid = "\"pid\":";
        string json = System.Text.Encoding.UTF8.GetString(JsonRecords.Write(state));
        int at = json.IndexOf(pid, StringComparison.Ordinal) + pid.Length;
        Proto.Hook resolved = new()
        {
            Path = hook.Path,
            TimeoutSeconds = (uint)(hook.Timeout ?? 0),
            StateBeforePid = json[..at],
            StateAfterPid = json[(at + 1)..],
        };
        resolved.Args.AddRange(hook.Args is { Count: > 0 } ? hook.Args : [hook.Path!]);
        // As runc, whose own process has the container's environment by then.
        resolved.Env.AddRange(hook.Env ?? ProcessEnvironment.Unique(spec.Process?.Env ?? []));
        return resolved;
    }
}
