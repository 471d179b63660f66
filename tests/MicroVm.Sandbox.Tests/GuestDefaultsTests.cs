using MicroVm.Sandbox.Plan;
using Xunit;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Tests;

/// <summary>Which settings of the host the guest's kernel gets.</summary>
public sealed class GuestDefaultsTests
{
    [Fact]
    public void SettingsThatDifferFromTheKernelsOwnAreTaken()
    {
        Dictionary<string, long> host = new()
        {
            ["kernel/threads-max"] = 5000,
            ["kernel/pid_max"] = 4194304,
            ["vm/overcommit_memory"] = 0,
            ["fs/protected_symlinks"] = 0,
            ["fs/protected_regular"] = 2,
            ["fs/inotify/max_user_watches"] = 524288,
            ["fs/inotify/max_user_instances"] = 128,
            ["fs/file-max"] = long.MaxValue,
            ["vm/max_map_count"] = 262144,
        };
        List<Proto.Sysctl> sysctls = [];
        GuestDefaults.Add(sysctls, path => host.TryGetValue(path, out long value) ? value : null);
        Assert.Equal(
            [
                ("kernel/threads-max", "5000"), ("kernel/pid_max", "32768"), ("vm/overcommit_memory", "1"), ("fs/protected_symlinks", "0"),
                ("fs/protected_regular", "2"), ("fs/inotify/max_user_watches", "524288"), ("fs/file-max", "9223372036854775807"), ("vm/max_map_count", "262144"),
            ],
            sysctls.Select(s => (s.Path, s.Value)));
    }

    [Fact]
    public void AHostThatTellsNothingChangesNothing()
    {
        List<Proto.Sysctl> sysctls = [];
        GuestDefaults.Add(sysctls, _ => null);
        Assert.Empty(sysctls);
    }

    [Fact]
    public void StrictOvercommitIsLeftToTheGuest()
    {
        List<Proto.Sysctl> sysctls = [];
        GuestDefaults.Add(sysctls, path => path == "vm/overcommit_memory" ? 2 : null);
        Assert.Empty(sysctls);
    }
}
