namespace MicroVm.Sandbox.Runtime;

/// <summary>What <c>exec --cgroup</c> names, in runc's form: [CONTROLLER:]CGROUP, below the container's own.</summary>
public static class SubCgroup
{
    /// <summary>The path below the container's cgroup; null where none is named, or the container's own.</summary>
    /// <param name="values">The flag's values.</param>
    /// <exception cref="SandboxException">They are none, in runc's words; controllers have no cgroups of their own in a VM, which has cgroup v2.</exception>
    public static string? Parse(IReadOnlyList<string> values)
    {
        ArgumentNullException.ThrowIfNull(values);
        string? path = null;
        Dictionary<string, string> controllers = [];
        foreach (string value in values)
        {
            string[] parts = value.Split(':');
            if (parts.Length > 2)
            {
                throw new SandboxException($"invalid --cgroup argument: {value}");
            }

            if (parts.Length == 1)
            {
                path = values.Count == 1 ? value : throw new SandboxException($"invalid --cgroup argument: {value} (missing <controller>: prefix)");
                continue;
            }

            foreach (string controller in parts[0].Split(','))
            {
                if (!controllers.TryAdd(controller, parts[1]))
                {
                    throw new SandboxException($"invalid --cgroup argument(s): controller {controller} specified multiple times");
                }
            }
        }

        foreach ((string controller, string named) in controllers)
        {
            // runc's name of the one hierarchy of cgroup v2 is empty.
            path = controller.Length == 0 ? named : throw new SandboxException($"unknown controller {controller} in SubCgroupPaths: the cgroups of a VM are of version 2, name one without a controller");
        }

        return path is null ? null : Below(path);
    }

    private static string? Below(string path)
    {
        List<string> names = [];
        foreach (string name in path.Split('/'))
        {
            if (name == "..")
            {
                if (names.Count == 0)
                {
                    throw new SandboxException($"{path} is not a sub cgroup path");
                }

                names.RemoveAt(names.Count - 1);
            }
            else if (name is not ("" or "."))
            {
                names.Add(name);
            }
        }

        return names.Count == 0 ? null : string.Join('/', names);
    }
}
