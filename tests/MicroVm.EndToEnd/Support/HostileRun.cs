namespace MicroVm.EndToEnd.Support;

/// <summary>A `run` whose guest is not to be trusted: afterwards the host is as it was.</summary>
internal static class HostileRun
{
    /// <summary>Runs a bundle to its end, and asserts that no state, mount, cgroup or process is left of it.</summary>
    public static CommandResult ToItsEnd(Bundle bundle, params string[] flags)
    {
        using Container container = Container.Start(bundle, flags);
        container.Process.StandardInput.Close();
        CommandResult result = container.Wait();
        AssertNothingLeft(container, bundle);
        return result;
    }

    /// <summary>Asserts that nothing is left of a container that has ended.</summary>
    /// <param name="container">The container.</param>
    /// <param name="bundle">Its bundle.</param>
    public static void AssertNothingLeft(Container container, Bundle bundle)
    {
        Assert.Empty(Directory.EnumerateFileSystemEntries(container.Root));
        string mounts = File.ReadAllText("/proc/mounts");
        Assert.DoesNotContain(container.Root, mounts, StringComparison.Ordinal);
        Assert.DoesNotContain(bundle.Path, mounts, StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateDirectories("/sys/fs/cgroup", container.Id, new EnumerationOptions { RecurseSubdirectories = true, IgnoreInaccessible = true, MaxRecursionDepth = 2 }));
        Assert.DoesNotContain(
            Directory.EnumerateDirectories("/proc").Select(d => int.TryParse(Path.GetFileName(d), out int pid) ? pid : 0).Where(pid => pid > 0 && ProcessTree.IsAlive(pid)),
            pid => ProcessTree.StandsFor(pid, container.Id));
    }
}
