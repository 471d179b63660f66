namespace MicroVm.Oci;

/// <summary>A sysctl by its path below /proc/sys.</summary>
public readonly record struct Sysctl(string Path, string Value);

/// <summary>Resolves <c>linux.sysctl</c>: only what belongs to a namespace of the container, as runc has it.</summary>
public static class Sysctls
{
    private static readonly string[] Ipc =
    [
        "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];

    /// <summary>Resolves names in dots' or slashes' form.</summary>
    /// <param name="sysctls">Names and values.</param>
    /// <param name="hasNamespace">Whether the container has a namespace of its own of a type.</param>
    /// <exception cref="SpecException">A name is not of a namespace that the container has.</exception>
    public static List<Sysctl> Resolve(IReadOnlyDictionary<string, string>? sysctls, Func<string, bool> hasNamespace)
    {
        ArgumentNullException.ThrowIfNull(hasNamespace);
        List<Sysctl> resolved = [];
        foreach ((string name, string value) in sysctls ?? new Dictionary<string, string>())
        {
            string path = Path(name);
            if (path.Split('/').Any(part => part is "" or "." or ".."))
            {
                throw new SpecException($"sysctl \"{name}\" is not a name below /proc/sys");
            }

            string? needed =
                Ipc.Contains(path) || path.StartsWith("fs/mqueue/", StringComparison.Ordinal) ? NamespaceTypes.Ipc
                : path.StartsWith("net/", StringComparison.Ordinal) ? NamespaceTypes.Network
                : path == "kernel/domainname" ? NamespaceTypes.Uts
                : null;
            if (path == "kernel/hostname")
            {
                throw new SpecException($"sysctl \"{name}\" is not allowed as it conflicts with the OCI \"hostname\" field");
            }

            if (needed is null)
            {
                throw new SpecException($"sysctl \"{name}\" is not in a separate kernel namespace");
            }

            if (!hasNamespace(needed))
            {
                throw new SpecException($"sysctl \"{name}\" is not allowed: the container has no {needed} namespace of its own");
            }

            resolved.Add(new Sysctl(path, value ?? ""));
        }

        return resolved;
    }

    /// <summary>sysctl(8)'s rule: the first separator tells the form; in it the other character stands for itself.</summary>
    private static string Path(string name)
    {
        int separator = name.AsSpan().IndexOfAny('.', '/');
        return separator >= 0 && name[separator] == '.'
            ? string.Create(name.Length, name, static (to, from) =>
            {
                for (int i = 0; i < from.Length; i++)
                {
                    to[i] = from[i] switch { '.' => '/', '/' => '.', char c => c };
                }
            })
            : name;
    }
}
