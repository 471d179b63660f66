using MicroVm.Oci;
using MicroVm.Sandbox;

namespace MicroVm.Shim.Bootstrap;

/// <summary>The command line that containerd gives a shim: Go's flags (one dash or two, <c>-f v</c> or <c>-f=v</c>), the action last.</summary>
internal sealed record ShimArguments
{
    private static readonly string[] TextFlags = ["namespace", "id", "address", "publish-binary", "bundle", "socket"];

    /// <summary>The action.</summary>
    internal ShimAction Action { get; init; }

    /// <summary>containerd's namespace.</summary>
    internal string Namespace { get; init; } = "";

    /// <summary>The container's id, or that of the pod's sandbox.</summary>
    internal string Id { get; init; } = "";

    /// <summary>containerd's gRPC socket.</summary>
    internal string Address { get; init; } = "";

    /// <summary>The bundle, of <c>delete</c>; empty when it is the working folder.</summary>
    internal string Bundle { get; init; } = "";

    /// <summary>Log more.</summary>
    internal bool Debug { get; init; }

    /// <summary>Parses a command line.</summary>
    /// <exception cref="SandboxException">A flag or the action is unknown, a value is missing, or namespace or id is.</exception>
    /// <exception cref="SpecException">The namespace or the id is malformed.</exception>
    internal static ShimArguments Parse(IReadOnlyList<string> args)
    {
        ShimArguments parsed = new();
        for (int i = 0; i < args.Count; i++)
        {
            if (args[i] is not ['-', _, ..])
            {
                parsed = parsed with { Action = ActionOf(args[i]) };
                continue;
            }

            string[] parts = args[i].TrimStart('-').Split('=', 2);
            string name = parts[0];
            if (TextFlags.Contains(name))
            {
                string value = parts.Length == 2 ? parts[1] : ++i < args.Count ? args[i] : throw new SandboxException($"flag needs an argument: -{name}");
                parsed = parsed.With(name, value);
                continue;
            }

            bool on = parts.Length == 1 || parts[1] is "true" or "1";
            parsed = name switch
            {
                "debug" => parsed with { Debug = on },
                "v" or "version" => parsed with { Action = ShimAction.Version },
                "info" => parsed with { Action = ShimAction.Info },
                _ => throw new SandboxException($"flag provided but not defined: -{name}"),
            };
        }

        if (parsed.Action is not (ShimAction.Version or ShimAction.Info))
        {
            parsed.Check();
        }

        return parsed;
    }

    private static ShimAction ActionOf(string word) => word switch
    {
        "start" => ShimAction.Start,
        "delete" => ShimAction.Delete,
        _ => throw new SandboxException($"unknown action \"{word}\": a shim has start and delete"),
    };

    private ShimArguments With(string name, string value) => name switch
    {
        "namespace" => this with { Namespace = value },
        "id" => this with { Id = value },
        "address" => this with { Address = value },
        "bundle" => this with { Bundle = value },
        _ => this,
    };

    // Both become names of folders.
    private void Check()
    {
        ContainerId.Check(Namespace.Length > 0 ? Namespace : throw new SandboxException("shim namespace cannot be empty (-namespace)"));
        ContainerId.Check(Id.Length > 0 ? Id : throw new SandboxException("shim id cannot be empty (-id)"));
    }
}
